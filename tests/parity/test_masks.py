"""EAT's block masks: exact counts, and every published statistic within its sampling error."""

import json

import numpy as np
import torch
from scipy import ndimage

from otic import masking
from otic.core.seeds import generator
from otic.masking.blocks import squares

COUNT = 6000
CROSS = np.stack([np.zeros((3, 3)), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3))])  # 4-connected


def configs(golden):
    folder = golden("eat")
    stats = json.loads((folder / "mask_stats.json").read_text())
    arrays = np.load(folder / "masks.npz")
    assert stats, "mask_stats.json holds no configuration"
    return [(name, s, arrays) for name, s in stats.items()]


def draw(stats, count=COUNT):
    grid = tuple(stats["grid"])
    return masking.inverse_block(
        count, grid, keep=1 - stats["mask_prob"], adjust=float(stats["mask_prob_adjust"]), block=stats["block"],
        gen=generator("parity", *grid), at_least=0,
    ).view(count, *grid)  # fmt: skip


def describe(masks):
    """Per mask: components, largest component, isolated patches, mean kept neighbours; overlap of consecutive masks."""
    m = masks.numpy()
    labels, _ = ndimage.label(m, CROSS)
    sizes = np.bincount(labels.ravel())[1:]
    owner = np.zeros(len(sizes), int)
    owner[labels[labels > 0] - 1] = np.nonzero(labels)[0]
    largest = np.zeros(len(m))
    np.maximum.at(largest, owner, sizes)
    pairs = (m[:, 1:] & m[:, :-1]).sum((1, 2)) + (m[:, :, 1:] & m[:, :, :-1]).sum((1, 2))
    flat = m.reshape(len(m), -1)
    return {
        "components4": np.bincount(owner, minlength=len(m)),
        "largest_component": largest,
        "isolated_kept": np.bincount(owner[sizes == 1], minlength=len(m)),
        "kept4neighbours": 2 * pairs / flat.sum(1),
        "pair_overlap": (flat[:-1] & flat[1:]).sum(1),
    }


def close(name, ours, theirs, error, sigmas=5.0):
    assert abs(ours - theirs) <= sigmas * error + 1e-9, (
        f"{name}: {ours:.4f}, reference {theirs:.4f}, standard error {error:.4f}"
    )


def close_std(name, ours, theirs, samples):
    """The spread of our values, which may have long tails, against that of so many others."""
    off = ours - ours.mean()
    variance = (off**2).mean()
    error = np.sqrt(((off**4).mean() - variance**2) / (4 * max(variance, 1e-12)) * (1 / len(ours) + 1 / samples))
    close(f"{name}, std", variance**0.5, theirs, error)


def test_counts(golden):
    for name, stats, _ in configs(golden):
        n = stats["grid"][0] * stats["grid"][1]
        share = 1 - stats["mask_prob"]
        centres = masking.block_count(
            tuple(stats["grid"]), share=share, adjust=float(stats["mask_prob_adjust"]), block=stats["block"]
        )
        assert centres == stats["n_centres_drawn"], name
        kept = draw(stats, 500).sum((1, 2)).unique().tolist()
        assert kept == [stats["kept_per_mask"]] == [int(n * share)], name


def test_before_the_count_is_corrected(golden):
    for name, stats, _ in configs(golden):
        kept = squares(
            COUNT, tuple(stats["grid"]), stats["n_centres_drawn"], stats["block"], generator("pre", name)
        ).sum(1).double().numpy()  # fmt: skip
        std = stats["pretrim_kept_std"]
        close(name, kept.mean(), stats["pretrim_kept_mean"], std * np.sqrt(1 / COUNT + 1 / stats["n_samples"]))
        close_std(name, kept, std, stats["n_samples"])
        for side, share in (("below", kept < stats["kept_per_mask"]), ("above", kept > stats["kept_per_mask"])):
            p = stats[f"pretrim_{side}_target_fraction"]
            error = np.sqrt(max(p * (1 - p), 1e-4) * (1 / COUNT + 1 / stats["n_samples"]))
            close(f"{name} {side}", share.mean(), p, error)


def test_keep_probability_of_every_patch(golden):
    for name, stats, arrays in configs(golden):
        theirs = arrays[f"{name}_keep_prob"]
        masks = draw(stats).float()
        ours = masks.mean(0).numpy()
        error = np.sqrt(np.maximum(theirs * (1 - theirs), 1e-4) * (1 / COUNT + 1 / stats["n_samples"]))
        worst = np.abs(ours - theirs) / error
        assert worst.max() < 5, (
            f"{name}: {worst.max():.1f} standard errors at {np.unravel_index(worst.argmax(), worst.shape)}"
        )
        together = masks.flatten(1).T.corrcoef().nan_to_num()  # patches of a block, and those that never vary
        chance = float((2 * together.square().mean()).sqrt())
        close(f"{name}: the map's mean squared difference", (worst**2).mean(), 1.0, chance, sigmas=4)


def test_shapes_of_the_kept_regions(golden):
    for name, stats, _ in configs(golden):
        found, shaped = describe(draw(stats)), min(3000, stats["n_samples"])
        means = {
            "components4": ("components4_mean", "components4_std", shaped),
            "largest_component": ("largest_component_mean", "largest_component_std", shaped),
            "isolated_kept": ("isolated_kept_mean", None, shaped),
            "kept4neighbours": ("kept4neighbours_per_kept_patch_mean", "kept4neighbours_std_over_masks", shaped),
            "pair_overlap": ("pair_overlap_mean", "pair_overlap_std", stats["n_samples"] // 2),
        }
        for kind, (mean, std, samples) in means.items():
            values = found[kind]
            spread = stats[std] if std else values.std()
            close(f"{name} {kind}", values.mean(), stats[mean], spread * np.sqrt(1 / COUNT + 1 / samples))
            if std:
                close_std(f"{name} {kind}", values, stats[std], samples)


def test_stored_masks_look_like_ours(golden):
    """The same statistics computed by us from the stored masks, so that they are known to mean the same."""
    for name, stats, arrays in configs(golden):
        grid = tuple(stats["grid"])
        bits = np.unpackbits(arrays[f"{name}_kept_bits"], axis=1)[:, : grid[0] * grid[1]].astype(bool)
        theirs = describe(torch.from_numpy(bits).view(-1, *grid))
        ours = describe(draw(stats, 3000))
        for kind, values in theirs.items():
            error = np.sqrt(values.var() / len(values) + ours[kind].var() / len(ours[kind]))
            close(f"{name} {kind}", ours[kind].mean(), values.mean(), error)


def test_audiomae_noise_gives_its_masks(golden):
    """Given the reference's uniform noise, the unstructured and the time-frequency masks are the reference's own."""
    from safetensors.torch import load_file

    folder = golden("audiomae")
    found = 0
    for path in sorted(folder.glob("*.safetensors")):
        tensors = load_file(path)
        if "noise" in tensors and "ids_keep" in tensors:
            kept = masking.lowest(tensors["noise"], tensors["ids_keep"].shape[1])
            assert torch.equal(~kept, tensors["mask"].bool()), path.name
            found += 1
        for run in [name.removesuffix(".mask") for name in tensors if name.endswith(".mask")]:
            time, freq = tensors[f"{run}.noise_t"], tensors[f"{run}.noise_f"]
            mask = tensors[f"{run}.mask"].bool().unflatten(1, (time.shape[1], -1))
            rows, columns = (~mask).any(2), (~mask).any(1)
            visible = masking.strips_from(
                time, freq,
                keep_time=float(rows.float().mean()) + 1e-6, keep_freq=float(columns.float().mean()) + 1e-6,
            )  # fmt: skip
            assert torch.equal(~visible, mask.flatten(1)), f"{path.name} {run}"
            found += 1
    assert found
