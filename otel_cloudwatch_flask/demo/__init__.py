"""A demo that sends real HTTP traffic to a shop, and checks the shop's metrics in a local CloudWatch emulator.

``running_shop`` starts the shop in a separate process (``isolation``, ``shop_process``, ``server``) and sends requests
(``load_generator``). ``run`` reads the published metrics back (``readback``), and compares them (``comparison``) with
the numbers that the shop and its visitors counted (``expectations``). ``report`` and ``comparison_table`` format the
outcome. ``commands.demo`` defines the command-line options.
"""
