"""The demonstration: a shop, its visitors and a CloudWatch on this machine, and whether both sides count the same.

``run`` puts it together of ``shop_process`` (the shop behind a WSGI server, in a process of its own), ``traffic`` (its
visitors), ``expectations`` (what shop and visitors counted), ``readback`` (what CloudWatch says) and ``comparison``
(both side by side); ``report`` shows it. ``open_shop`` leaves shop, visitors and CloudWatch running.
"""
