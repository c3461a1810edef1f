"""``LocalCloudWatch``: an HTTP CloudWatch on loopback, for tests and demonstrations.

A validating proxy checks each request by the rules of ``testing.request_rules`` and forwards valid ones to moto.
"""
