"""The C++ products, quantizer and embedding against the definition, on every instruction set."""

import os
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from espnet_quant4.int4.packing import pack
from espnet_quant4.kernels import int4_reference, native

WORKING = [i for i, works in enumerate(native.instruction_sets().values()) if works]
sets = st.sampled_from(WORKING)
largest_weight = st.sampled_from([1, 3, 7, 15, 127])
largest_input = st.sampled_from([1, 7, 31, 127])
sizes = st.one_of(st.sampled_from([0, 1, 2, 15, 16, 17, 31, 32, 33, 64, 65]), st.integers(0, 90))
columns_of = st.one_of(sizes, st.sampled_from([639, 640, 641, 667, 668, 669, 1280, 1337]))


def test_the_library_under_test_has_what_it_should():
    expected = os.environ.get("QUANT4_EXPECT")
    assert "generic" in native.instruction_sets()
    assert expected is None or native.instruction_sets()[expected]


def codes(rows: int, columns: int, largest: int, seed: int, extreme: bool) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    if extreme:
        signs = torch.randint(0, 2, (rows, columns), generator=generator) * 2 - 1
        return (signs * largest).to(torch.int8)
    drawn = torch.randint(-largest, largest + 1, (rows, columns), generator=generator)
    return drawn.to(torch.int8)


def linear(weight: torch.Tensor, largest: int, number: int) -> native.NativeLinear:
    return native.NativeLinear(weight, largest, torch.ones(weight.size(0)), None, number)


@settings(deadline=None, max_examples=200)
@given(sets, sizes, columns_of, st.integers(0, 9), largest_weight, largest_input,
       st.integers(0, 2**16), st.booleans(), st.integers(1, 3))  # fmt: skip
def test_sums_are_exact(
    number, rows, columns, frames, weight_max, input_max, seed, extreme, threads
):
    weight = codes(rows, columns, weight_max, seed, extreme)
    x = codes(frames, columns, input_max, seed + 1, extreme)
    found = linear(weight, weight_max, number).sums(x, input_max, threads)
    assert torch.equal(found, int4_reference.sums(x, weight))


@pytest.mark.parametrize("number", WORKING)
@pytest.mark.parametrize("columns", [4096, 65536])
@pytest.mark.parametrize("weight_max, input_max", [(7, 7), (7, 127), (127, 7), (127, 127)])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("frames", [1, 5])
def test_no_accumulator_overflows(number, columns, weight_max, input_max, sign, frames):
    weight = torch.full((33, columns), weight_max, dtype=torch.int8)
    x = torch.full((frames, columns), sign * input_max, dtype=torch.int8)
    found = linear(weight, weight_max, number).sums(x, input_max)
    assert (found == sign * weight_max * input_max * columns).all()


@pytest.mark.parametrize("number", WORKING)
def test_threads_share_large_products(number):
    weight, x = codes(2051, 640, 7, 1, False), codes(70, 640, 7, 2, False)
    packed = linear(weight, 7, number)
    for threads in (1, 2, 3, 8):
        assert torch.equal(packed.sums(x, 7, threads), int4_reference.sums(x, weight))


@settings(deadline=None, max_examples=100)
@given(sets, sizes, sizes, st.integers(0, 9), st.sampled_from([7, 127]), st.booleans(),
       st.floats(2**-10, 2**10, width=32), st.integers(0, 2**16))  # fmt: skip
def test_linear_layer(number, rows, columns, frames, weight_max, with_bias, clip, seed):
    torch.manual_seed(seed)
    weight = codes(rows, columns, weight_max, seed, False)
    scale, bias = torch.rand(rows), torch.randn(rows) if with_bias else None
    x = 2 * clip * torch.randn(frames, columns)
    found = native.NativeLinear(weight, weight_max, scale, bias, number).run(x, clip, 7)
    expected = int4_reference.linear(x, clip, 7, weight, scale, bias)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-5)


@settings(deadline=None, max_examples=200)
@given(sets, st.integers(0, 70), st.floats(2**-26, 2**26, width=32), st.sampled_from([1, 3, 7, 127]),
       st.integers(0, 2**16))  # fmt: skip
def test_quantizer_rounds_as_the_definition(number, count, clip, max_code, seed):
    torch.manual_seed(seed)
    x = clip * torch.randn(count)
    # Exact ties, halfway between two levels, and what lies far outside.
    x[::3] = (torch.randint(-9, 9, x[::3].shape) + 0.5) * (clip / max_code)
    x[::7] *= 1e6
    found = native.quantize(x, clip, max_code, number)
    assert torch.equal(found, int4_reference.quantize(x, clip, max_code))


@pytest.mark.parametrize("number", WORKING)
def test_infinity_clips_and_nan_is_refused(number):
    x = torch.tensor([float("inf"), -float("inf"), 0.0])
    assert native.quantize(x, 2.0, 7, number).tolist() == [7, -7, 0]
    for size in (1, 8, 19):
        for place in {0, size - 1}:
            x = torch.zeros(size)
            x[place] = float("nan")
            with pytest.raises(ValueError, match="NaN"):
                native.quantize(x, 2.0, 7, number)
            with pytest.raises(ValueError, match="NaN"):
                linear(codes(3, size, 7, 0, False), 7, number).run(x.view(1, -1), 2.0, 7)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(0, 40), st.integers(2, 8), st.booleans(), st.integers(0, 99))
def test_embedding(rows, columns, bits, by_row, seed):
    torch.manual_seed(seed)
    table = codes(rows, columns, 2 ** (bits - 1) - 1, seed, False)
    scale = torch.rand(rows if by_row else 1)
    ids = torch.randint(0, rows, (3, 4))
    found = native.embedding(pack(table, bits), columns, bits, scale, ids)
    expected = table.float() * scale.unsqueeze(1)
    assert torch.equal(found, expected[ids])


# ---- what is refused -----------------------------------------------------------------------------


def test_wrong_tensors_are_refused_before_they_reach_c():
    packed = linear(codes(5, 6, 7, 0, False), 7, WORKING[0])
    with pytest.raises(TypeError, match="torch.float32 on cpu"):
        packed.run(torch.zeros(2, 6, dtype=torch.float64), 1.0, 7)
    with pytest.raises(TypeError, match="meta"):
        packed.run(torch.zeros(2, 6, device="meta"), 1.0, 7)
    with pytest.raises(ValueError, match=r"\(2, 5\); expected \(2, 6\)"):
        packed.run(torch.zeros(2, 5), 1.0, 7)
    with pytest.raises(ValueError, match="contiguous"):
        packed.run(torch.zeros(6, 2).T, 1.0, 7)
    with pytest.raises(ValueError, match="input_max: 128"):
        packed.run(torch.zeros(2, 6), 1.0, 128)
    for clip in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="clip"):
            packed.run(torch.zeros(2, 6), clip, 7)
    with pytest.raises(ValueError, match="codes -8 to"):
        linear(torch.full((2, 3), -8, dtype=torch.int8), 7, WORKING[0])
    with pytest.raises(ValueError, match="codes 9 to 9; valid are -7 to 7"):
        packed.sums(torch.full((1, 6), 9, dtype=torch.int8), 7)
    with pytest.raises(ValueError, match="ids 0 to 5; valid are 0 to 2"):
        native.embedding(
            torch.zeros(3, 2, dtype=torch.uint8), 4, 4, torch.ones(1), torch.tensor([0, 5])
        )
    with pytest.raises(native.NativeError, match="instruction set"):
        linear(codes(2, 2, 7, 0, False), 7, 99)


def test_several_python_threads_call_one_layer():
    weight, x = codes(700, 640, 7, 1, False), codes(40, 640, 7, 2, False)
    packed, expected = linear(weight, 7, WORKING[0]), int4_reference.sums(x, weight)
    wrong = []

    def call() -> None:
        for _ in range(30):
            if not torch.equal(packed.sums(x, 7, 2), expected):
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_forked_child_has_threads_of_its_own():
    weight, x = codes(2048, 640, 7, 1, False), codes(40, 640, 7, 2, False)
    packed, expected = linear(weight, 7, WORKING[0]), int4_reference.sums(x, weight)
    packed.sums(x, 7, 2)
    wanted = expected.numpy().tobytes()
    child = os.fork()
    if child == 0:
        # Nothing of PyTorch that would use its threads, which do not survive a fork.
        os._exit(0 if packed.sums(x, 7, 2).numpy().tobytes() == wanted else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# ---- choice of the library and instruction set ---------------------------------------------------


def run(code: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def test_instruction_set_is_chosen_by_the_environment():
    code = "from espnet_quant4.kernels import native as n; print(n.selected_instruction_set())"
    names = list(native.instruction_sets())
    assert run(code, ESPNET_QUANT4_INSTRUCTION_SET="generic").stdout.strip() == str(
        names.index("generic")
    )
    failed = run(code, ESPNET_QUANT4_INSTRUCTION_SET="sse9")
    assert "sse9" in failed.stderr and "generic" in failed.stderr


def test_without_the_library_one_warning_and_the_same_results(tmp_path):
    code = """
import torch
from espnet_quant4.nn import QuantLinear
from espnet_quant4.scheme import apply_scheme
from espnet_quant4.int4 import convert
torch.manual_seed(0)
layer = QuantLinear(6, 5)
apply_scheme(layer, {"linear": {
    "weight": {"quantizer": "max", "bits": 4}, "input": {"quantizer": "fix", "bits": 4, "clip": 1.0}}})
first = convert(layer)(torch.ones(2, 6))
print(first.sum().item())
convert(layer)(torch.ones(2, 6))
"""
    with_library = run(code)
    without = run(code, ESPNET_QUANT4_LIBRARY=str(tmp_path / "none.so"))
    assert float(with_library.stdout) == pytest.approx(float(without.stdout), abs=1e-5)
    assert with_library.stderr == ""
    assert without.stderr.count("RuntimeWarning") == 1
    assert "python -m espnet_quant4.kernels.build" in without.stderr
    (tmp_path / "none.so").write_bytes(b"no library")
    broken = run(code, ESPNET_QUANT4_LIBRARY=str(tmp_path / "none.so"))
    assert float(broken.stdout) == float(without.stdout)
    assert "do not load" in broken.stderr
