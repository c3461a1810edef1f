"""``LocalCloudWatch``: a CloudWatch on loopback, for tests and demonstrations.

A gate judges each request by the rules of ``testing.request_rules`` and passes what is valid to moto's server.
"""
