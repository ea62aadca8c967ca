"""numpy leaves AVX-512 alone on the processors on which it sorts more slowly with it."""

import pytest
from numpy._core._multiarray_umath import __cpu_dispatch__

from quantstore.process import instructions

TEMPLATE = """processor\t: 0
vendor_id\t: {vendor}
cpu family\t: {family}
model\t\t: 17
flags\t\t: fpu sse2 avx2 {more_flags}
bogomips\t: 5000.00
"""


def chosen(tmp_path, vendor, family, more_flags, **environment):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(TEMPLATE.format(vendor=vendor, family=family, more_flags=more_flags))
    instructions.prefer_fast_sorting(environment, cpuinfo)
    return environment.get(instructions.VARIABLE)


def test_zen_4_sorts_with_avx2(tmp_path):
    assert chosen(tmp_path, "AuthenticAMD", 25, "avx512f avx512vl") == instructions.AVX512


@pytest.mark.parametrize(
    ("vendor", "family", "more_flags"),
    [
        pytest.param("AuthenticAMD", 25, "", id="Zen 3"),
        pytest.param("AuthenticAMD", 26, "avx512f", id="Zen 5"),
        pytest.param("GenuineIntel", 6, "avx512f", id="Intel"),
    ],
)
def test_others_are_left_alone(tmp_path, vendor, family, more_flags):
    assert chosen(tmp_path, vendor, family, more_flags) is None


def test_what_somebody_chose_stands(tmp_path):
    chosen_before = {instructions.VARIABLE: "AVX512_SPR"}
    assert chosen(tmp_path, "AuthenticAMD", 25, "avx512f", **chosen_before) == "AVX512_SPR"


def test_a_system_that_does_not_describe_its_processor_is_left_alone(tmp_path):
    environment = {}
    instructions.prefer_fast_sorting(environment, tmp_path / "missing")
    assert environment == {}


@pytest.mark.skipif("AVX512_ICL" not in __cpu_dispatch__, reason="not numpy 2.4 on x86-64")
def test_the_features_are_called_what_numpy_calls_them():
    assert set(instructions.AVX512.split()) <= set(__cpu_dispatch__)
