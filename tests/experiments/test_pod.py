"""The pod benchmark without a TPU compiler: what it counts, what it reads, how it searches."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

FOLDER = pathlib.Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def pod(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("pod")


@pytest.fixture
def lowered(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("lowered")


def test_tally_multiplies_loops_and_calls(lowered):
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))

    def share(x):
        everyone = jax.lax.all_gather(x, "batch", tiled=True)
        onward = [(i, (i + 1) % 8) for i in range(8)]

        def hop(_, y):
            y = jax.lax.fori_loop(0, 3, lambda _, z: z @ z.T @ z, y)
            return jax.lax.ppermute(y, "batch", onward)

        halves = jax.lax.all_gather(x, "batch", axis_index_groups=[[0, 1, 2, 3], [4, 5, 6, 7]])
        looped = jnp.sum(jax.lax.fori_loop(0, 8, hop, x))
        return jax.lax.psum(looped + jnp.sum(everyone) + jnp.sum(halves), "batch")

    mapped = jax.shard_map(share, mesh=mesh, in_specs=P("batch"), out_specs=P(), check_vma=False)
    counted = lowered.tally(jax.jit(mapped).lower(jnp.ones((32, 16), jnp.bfloat16)))
    assert counted.collectives == {
        "all_gather": lowered.Traffic(1, 32 * 16 * 2),
        "all_gather/4": lowered.Traffic(1, 16 * 16 * 2),
        "collective_permute": lowered.Traffic(8, 8 * 4 * 16 * 2),
        "all_reduce": lowered.Traffic(1, 2),
    }
    assert counted.matmul_flops == 8 * 3 * 2 * (2 * 4 * 4 * 16)
    assert counted.unknown_loops == 0


def test_a_compiled_program_tells_the_same(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    scaling, lowered = map(importlib.import_module, ("scaling", "lowered"))
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))

    def share(x):
        everyone = jax.lax.all_gather(x, "batch", tiled=True)
        onward = [(i, (i + 1) % 8) for i in range(8)]
        hop = lambda _, y: jax.lax.ppermute(jnp.sin(y), "batch", onward)
        kept = jax.lax.psum_scatter(everyone * jax.lax.axis_index("batch"), "batch", tiled=True)
        return jax.lax.psum(jax.lax.fori_loop(0, 5, hop, kept), "batch")

    mapped = jax.shard_map(share, mesh=mesh, in_specs=P("batch"), out_specs=P(), check_vma=False)
    text = jax.jit(mapped).lower(jnp.ones((32, 16))).compile().as_text()
    found = scaling.compiled_traffic(text)
    assert found == {
        "all_gather": lowered.Traffic(1, 32 * 16 * 4),
        "reduce_scatter": lowered.Traffic(1, 32 * 16 * 4),
        "collective_permute": lowered.Traffic(5, 5 * 4 * 16 * 4),
        "all_reduce": lowered.Traffic(1, 4 * 16 * 4),
    }
    assert scaling.sent(found, 8) == 7 / 8 * (2 * 2048 + 2 * 256) + 5 * 256
    assert scaling.sent({"all_gather/4": lowered.Traffic(1, 400)}, 8) == 300


# As the TPU's compiler writes them: layouts with tiles, starts that list operands and results, a
# collective that is in each fusion that it passes.
TPU = """
%fused (x: bf16[8,128]) -> bf16[8,128] {
  %gather.1 = (f32[64,256]{1,0}, f32[512,256]{1,0:T(8,128)S(1)}) \
all-gather-start(%x), replica_groups=[1,8]<=[8]
  %all-gather-done.1 = f32[512,256]{1,0:T(8,128)S(1)} all-gather-done(%gather.1)
  %start = (f32[64,256]{1,0}, f32[64,256]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%x), pairs={{0,1}}
}

%begun (x: f32[16,128]) -> f32[128,128] {
  ROOT %all-gather.5 = f32[128,128]{1,0:T(8,128)} \
all-gather(%x), replica_groups=[1,8]<=[8], attributes={chain_id="1"}
}

%passed.1 (x: f32[16,128]) -> f32[128,128] {
  ROOT %all-gather.6 = f32[128,128]{1,0:T(8,128)} \
all-gather(%x), replica_groups=[1,8]<=[8], attributes={chain_id="1"}
}

ENTRY %main.26_spmd (param: f32[64,256]) -> f32[] {
  %async-collective-start.1 = (f32[128,128]{1,0:T(8,128)}, s32[]{:T(128)}) \
fusion(%param), kind=kCustom, calls=%begun
  %fusion.1 = f32[128,128]{1,0:T(8,128)} \
fusion(%async-collective-start.1), kind=kOutput, calls=%passed.1
  %all-reduce.3 = (f32[256]{0:T(256)}, bf16[2,64]{1,0:T(2,128)}) \
all-reduce(%a, %b), replica_groups={{0,1,2,3,4,5,6,7}}
  %all-reduce.4 = f32[256]{0:T(256)} all-reduce(%a), replica_groups={{0,1,2,3},{4,5,6,7}}
  %gather.2 = f32[256]{0:T(256)} all-gather(%a), replica_groups=[4,2]<=[8]
  ROOT %fusion = bf16[8,128]{1,0:T(8,128)} fusion(%a), kind=kLoop, calls=%fused
}
"""


def test_a_tpus_program_is_read(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    scaling, lowered = map(importlib.import_module, ("scaling", "lowered"))
    assert scaling.compiled_traffic(TPU) == {
        "all_gather": lowered.Traffic(2, 512 * 256 * 4 + 128 * 128 * 4),
        "collective_permute": lowered.Traffic(1, 64 * 256 * 4),
        "all_reduce": lowered.Traffic(1, 256 * 4 + 128 * 2),
        "all_reduce/4": lowered.Traffic(1, 256 * 4),
        "all_gather/2": lowered.Traffic(1, 256 * 4),
    }


def test_the_batch_at_which_links_are_a_tenth(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    scaling, lowered = map(importlib.import_module, ("scaling", "lowered"))
    # 100 images of 1 TFLOP; 2 GB of gradients and 0.01 GB per image. Across 16 x 16 it is 16 hops.
    row = {
        "topology": "v5e:16x16",
        "images": 100,
        "flops": 100e12,
        "sent": 3e9,
        "sent_per_image": 0.01e9,
    }
    row["collectives"] = {
        "all_reduce": lowered.Traffic(1000),
        "collective_permute": lowered.Traffic(500),
    }
    row |= scaling.times(row)
    assert row["compute_seconds"] == 100 / 197 and row["link_seconds"] == 3 / 200
    assert row["hop_seconds"] == pytest.approx(0.0165)
    links, compute = 1 / 200, 0.1 / 197  # seconds for a GB, a tenth of those for an image
    assert scaling.batch_at_share(row) == pytest.approx(2 * links / (compute - 0.01 * links))
    with_hops = (2 * links + 0.0165) / (compute - 0.01 * links)
    assert scaling.batch_at_share(row, hops=True) == pytest.approx(with_hops)
    assert scaling.batch_at_share({**row, "compute_seconds": 0.04}) == float("inf")


@pytest.mark.parametrize("true_limit", [1, 7, 100, 128, 1000, 5000])
def test_largest_brackets_the_limit(pod, true_limit):
    tried = []

    def fits(size):
        tried.append(size)
        return size <= true_limit

    fitting, refused = pod.largest(fits, start=128, finest=lambda _: 1)
    assert (fitting, refused) == (true_limit, true_limit + 1)
    assert len(tried) == len(set(tried))


def test_largest_stops_at_the_distance_asked_for(pod):
    fitting, refused = pod.largest(lambda size: size <= 300, start=128, finest=lambda _: 32)
    assert (fitting, refused) == (288, 320)


def test_largest_gives_up_where_nothing_fits(pod):
    assert pod.largest(lambda size: False, start=128, finest=lambda _: 1) == (0, 1)


@pytest.mark.parametrize(
    "reason, used",
    [
        ("Ran out of memory in memory space hbm. Used 33.05G of 15.75G hbm.", 33.05 * 2**30),
        ("HLO temporaries (19.02G) exceeds available HBM (15.75G).", 19.02 * 2**30),
    ],
)
def test_refusal_reads_bytes(lowered, reason, used):
    assert lowered.refusal(f"RESOURCE_EXHAUSTED: {reason}") == (round(used), round(15.75 * 2**30))


def test_only_want_of_memory_is_an_answer(lowered):
    assert lowered.refusal("RESOURCE_EXHAUSTED: too much of something") == (None, None)
    with pytest.raises(ValueError, match="Mosaic"):
        lowered.refusal("INTERNAL: Mosaic failed")


def test_shares_mend_the_loops_of_the_compilers_count(lowered):
    step = lowered.Need(True, hbm=1000, limit=None, flops=900.0)
    loss = lowered.Need(True, hbm=10, limit=None, flops=20.0)
    found = lowered.shares(step, loss, 120)
    assert found == {"flops": 1000.0, "hbm_share": 0.01, "flops_share": 0.12}


@pytest.mark.parametrize(
    "count, text", [(0, "0 B"), (1023, "1023 B"), (2**20, "1 MiB"), (15.75 * 2**30, "15.8 GiB")]
)
def test_size_is_short(pod, count, text):
    assert pod.size(count) == text
