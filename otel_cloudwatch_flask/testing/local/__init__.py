"""``LocalCloudWatch``, an HTTP server that emulates CloudWatch on loopback, for tests and demonstrations.

A proxy validates each request according to ``testing.request_rules``, and forwards valid requests to moto.
"""
