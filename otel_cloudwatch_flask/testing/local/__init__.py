"""``LocalCloudWatch``, an HTTP server that emulates CloudWatch on loopback, for tests and demonstrations.

A proxy validates PutMetricData requests according to ``testing.request_rules``, and forwards valid ones to moto.
"""
