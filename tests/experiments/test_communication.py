from mekax.experiments.communication import collective_bytes

PROGRAM = """
  %all-reduce.1 = f32[] all-reduce(%x), channel_id=1
  %all-reduce.2 = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%y, %z), channel_id=2
  %gather = f32[8]{0} all-gather-start(%w), channel_id=3
  %add = f32[100]{0} add(%a, %b)
"""


def test_bytes_are_read_off_a_program():
    assert collective_bytes(PROGRAM) == (3, 4 + (24 + 8) + 32)
    assert collective_bytes("%add = f32[100]{0} add(%a, %b)") == (0, 0)
