"""A demo that sends real HTTP traffic to a shop, and checks the shop's metrics in a local CloudWatch emulator.

``run`` starts the shop in a separate process (``isolation``, ``shop_process``, ``server``), sends requests
(``load_generator``), reads the published metrics back (``readback``), and compares them (``comparison``) with the
numbers that the shop and its visitors counted (``expectations``). ``report`` and ``comparison_table`` format the
outcome. For ``demo --serve``, ``running_shop`` keeps the shop running instead. ``commands.demo`` defines the
command-line options.
"""
