"""The demo: a shop with real HTTP traffic and a local CloudWatch emulator, whose numbers are compared.

``run`` starts the shop in its own process (``shop_process``, ``server``), sends requests (``load_generator``), reads
the published metrics back (``readback``) and compares them (``comparison``) with what the shop and its visitors counted
(``expectations``). ``report`` and ``comparison_table`` format the outcome. ``running_shop`` keeps everything running
instead, for ``demo --serve``. Command-line options are in ``commands.demo``.
"""
