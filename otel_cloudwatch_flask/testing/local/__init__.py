"""``LocalCloudWatch``, an HTTP server that emulates CloudWatch on loopback, for tests and demonstrations.

``application`` validates PutMetricData requests according to ``testing.request_rules`` and stores them, ``queries``
answers queries, and ``json_protocol`` decodes requests and encodes responses. ``server`` adds the HTTP server.
"""
