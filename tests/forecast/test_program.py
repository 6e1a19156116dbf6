"""Programs of a few lines whose memory and traffic can be counted by hand."""

import pytest

from gptjax.forecast.kernels import kernels_of
from gptjax.forecast.liveness import live_at_peak
from gptjax.forecast.program import arrays_of, bytes_of, parse_program

LOOP = """\
HloModule step, is_scheduled=true, input_output_alias={ {0}: (0, {}, may-alias) }, entry_computation_layout={()}

%update (p.0: f32[8,256], p.1: f32[256], p.2: s32[]) -> f32[8,256] {
  %p.0 = f32[8,256]{1,0} parameter(0)
  %p.1 = f32[256]{0} parameter(1)
  %b = f32[1,256]{1,0} bitcast(%p.1)
  %p.2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %written = f32[8,256]{1,0} dynamic-update-slice(%p.0, %b, %p.2, %zero)
}

%body (carried: (s32[], f32[8,256], f32[256])) -> (s32[], f32[8,256], f32[256]) {
  %carried = (s32[], f32[8,256]{1,0}, /*index=2*/f32[256]{0}) parameter(0)
  %i = s32[] get-tuple-element(%carried), index=0
  %stack = f32[8,256]{1,0} get-tuple-element(%carried), index=1
  %row = f32[256]{0} get-tuple-element(%carried), index=2
  %inner = f32[2,256]{1,0} broadcast(%row), dimensions={1}
  %sum = f32[256]{0} reduce(%inner, %i), dimensions={0}, to_apply=%add
  %filled = f32[8,256]{1,0} fusion(%stack, %sum, %i), kind=kLoop, calls=%update
  ROOT %next = (s32[], f32[8,256]{1,0}, f32[256]{0}) tuple(%i, %filled, %sum)
}

%condition (c: (s32[], f32[8,256], f32[256])) -> pred[] {
  %c = (s32[], f32[8,256]{1,0}, f32[256]{0}) parameter(0)
  ROOT %more = pred[] constant(true)
}

ENTRY %main (a: f32[256,256], x: f32[256]) -> (f32[256,256], f32[]) {
  %a = f32[256,256]{1,0} parameter(0)
  %x = f32[256]{0} parameter(1)
  %empty = f32[8,256]{1,0} broadcast(), dimensions={}, metadata={op_name="broadcast.1"}
  %start = s32[] constant(0)
  %copied = f32[256]{0} copy(%x)
  %given = (s32[], f32[8,256]{1,0}, f32[256]{0}) tuple(%start, %empty, %copied)
  %loop = (s32[], f32[8,256]{1,0}, f32[256]{0}) while(%given), condition=%condition, body=%body, \
metadata={op_name="jit(step)/jvp()/while"}, backend_config={"known_trip_count":{"n":"8"}}
  %kept = f32[8,256]{1,0} get-tuple-element(%loop), index=1
  %product = f32[256,256]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %total = f32[] reduce(%kept, %start), dimensions={0,1}, to_apply=%add
  ROOT %results = (f32[256,256]{1,0}, f32[]) tuple(%product, %total)
}
"""


def test_types_with_nested_tuples_are_parsed():
    text = LOOP.replace("%total = f32[]", "%total = ((bf16[2,3]{1,0:T(8,128)}, s4[4]), /*index=1*/pred[5])")
    (total,) = [each for each in parse_program(text).computations["main"] if each.name == "total"]
    assert [array.shape for array in arrays_of(total.shape)] == [(2, 3), (4,), (5,)]
    assert bytes_of(total.shape) == 12 + 2 + 5


def test_the_peak_has_the_carry_of_the_loop_and_its_own_arrays():
    """[8, 256] and [256] are carried, and [2, 256] is made inside. The results of the loop need no further memory, and
    the product uses the memory of the donated argument."""
    live = live_at_peak(parse_program(LOOP.replace("256", "4096")))  # larger than arrays that are ignored
    assert sorted(each.array.shape for each in live) == [(2, 4096), (8, 4096), (4096,)]
    (stack,) = [each for each in live if each.array.shape == (8, 4096)]
    assert stack.scope == "jit(step)/jvp()/while"  # it was an empty array before


def test_a_result_without_a_donated_argument_needs_memory():
    text = LOOP.replace("256", "4096").replace("input_output_alias={ {0}: (0, {}, may-alias) }", "unlike={ }")
    assert max(each.array.bytes for each in live_at_peak(parse_program(text))) == 4096**2 * 4


def test_kernels_in_loops_count_per_iteration_and_slices_by_their_own_bytes():
    kernels = {(each.kind, each.bytes): each for each in kernels_of(parse_program(LOOP))}
    product = kernels["product", 3 * 256 * 256 * 4]
    assert (product.flops, product.times) == (2.0 * 256**3, 1)
    filled = kernels["other", 256 * 4 + 4 + 256 * 4]  # one row is read and written, but not the other seven
    assert filled.times == 8


def test_a_slice_reads_and_writes_its_own_bytes():
    sliced = "%part = f32[16]{0} dynamic-slice(%x, %start), dynamic_slice_sizes={16}\n  %copied"
    kernels = kernels_of(parse_program(LOOP.replace("%copied", sliced, 1)))
    assert 2 * 16 * 4 in {each.bytes for each in kernels}


@pytest.mark.parametrize(("target", "products"), [("Softmax", 2), ("SoftmaxBackward", 5)])
@pytest.mark.parametrize("mask", ["CAUSAL", "NO_MASK"])
def test_fused_attention_counts_its_products_half_of_them_if_causal(target, products, mask):
    """Forward: queries by keys, and weights by values. Backward: the weights again, and four gradients."""
    rows, heads, length, width = 2, 4, 64, 32
    shape, scores = f"bf16[{rows},{heads},{length},{width}]{{3,2,1,0}}", (rows, heads, length, length)
    size = ",".join(f'"{number}"' for number in scores)
    call = (
        f'%fused = {shape} custom-call(%q, %q, %q), custom_call_target="__cudnn$fmha{target}", backend_config='
        f'{{"mask_type":"{mask}","intermediate_tensor_shape":{{"element_type":"BF16","dimensions":[{size}]}}}}'
    )
    program = (
        f"HloModule one, is_scheduled=true\n\nENTRY %main (q: bf16[2]) -> bf16[2] {{\n  %q = {shape} parameter(0)\n"
    )
    (kernel,) = kernels_of(parse_program(f"{program}  ROOT {call}\n}}\n"))
    every = products * 2 * rows * heads * length * length * width
    assert kernel.kind == "attention" and kernel.flops == (every / 2 if mask == "CAUSAL" else every)


def test_a_loop_whose_length_depends_on_the_data_writes_nine_of_ten_rows_and_one_without_rows_is_refused():
    unknown = LOOP.replace("known_trip_count", "unknown")
    assert max(each.times for each in kernels_of(parse_program(unknown.replace("[8,", "[80,")))) == 72
    with pytest.raises(ValueError, match="how often"):
        kernels_of(parse_program(unknown.replace("dynamic-update-slice(%p.0, %b, %p.2, %zero)", "add(%p.0, %p.0)")))
