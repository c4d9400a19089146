"""What a forward pass must cost at least: bytes and multiply-adds of a plan on a measured machine.

`cost.machine` measures a processor and remembers the figures; `cost.roofline` walks a plan;
`cost.advice` says what would make this machine faster. Nothing is imported here, so that the
command line can print its help without the array libraries.
"""
