"""Time the CPU rasterizer beside that of OpenSplat, in one process, on the same scenes.

    python tools/bench_opensplat.py OPENSPLAT [--repeats N] [--native] [--json FILE]

OPENSPLAT is a checkout of https://github.com/pierotofy/OpenSplat (AGPL-3.0), whose file
rasterizer/gsplat-cpu/gsplat_cpu.cpp is compiled here with the compiler of the machine and the torch
of this environment; nothing of it is part of msdyn. The calls alternate, each forward and backward
from means, quaternions, scales, opacities and colours to an image of three channels and back, in
one thread; the figures are medians of its CPU time, and of the ratios of adjacent calls.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_render import machine, random_gaussians
from jaxtyping import Float

from msdyn.raster import rasterize

SCENES = ((5_000, 160, 120), (20_000, 320, 240), (100_000, 640, 480))

# The autograd function around OpenSplat's forward and backward kernels.
BINDING = """
#include <torch/extension.h>
#include "bindings.h"

using Tensors = torch::autograd::variable_list;

struct Blend : torch::autograd::Function<Blend> {
  static torch::Tensor forward(torch::autograd::AutogradContext *context, torch::Tensor means2d,
                               torch::Tensor conics, torch::Tensor colours, torch::Tensor opacities,
                               torch::Tensor covariances, torch::Tensor depths, int64_t width,
                               int64_t height, torch::Tensor background) {
    auto [image, transmittance, lists] = rasterize_forward_tensor_cpu(
        width, height, means2d, conics, colours, opacities, background, covariances, depths);
    context->saved_data["lists"] = reinterpret_cast<int64_t>(lists);
    context->save_for_backward({means2d, conics, colours, opacities, background, covariances,
                                depths, transmittance});
    return image;
  }

  static Tensors backward(torch::autograd::AutogradContext *context, Tensors upstream) {
    auto saved = context->get_saved_variables();
    auto *lists = reinterpret_cast<std::vector<int32_t> *>(context->saved_data["lists"].toInt());
    auto image = upstream[0].contiguous();
    auto [xy, conics, colours, opacities] = rasterize_backward_tensor_cpu(
        image.size(0), image.size(1), saved[0], saved[1], saved[2], saved[3], saved[4], saved[5],
        saved[6], saved[7], lists, image, torch::zeros_like(saved[7]));
    delete[] lists;
    torch::Tensor none;
    return {xy, conics, colours, opacities, none, none, none, none, none};
  }
};

torch::Tensor render(torch::Tensor means, torch::Tensor quats, torch::Tensor scales,
                     torch::Tensor opacities, torch::Tensor colours, torch::Tensor view,
                     torch::Tensor projection, double fx, double fy, double cx, double cy,
                     int64_t width, int64_t height, torch::Tensor background) {
  auto [means2d, radii, conics, covariances, depths] = project_gaussians_forward_tensor_cpu(
      means.size(0), means, scales, 1.0f, quats, view, projection, fx, fy, cx, cy, height, width,
      0.01f);
  return Blend::apply(means2d, conics, colours, opacities, covariances, depths, width, height,
                      background);
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) { module.def("render", &render); }
"""


def build(checkout: Path, native: bool) -> Any:
    """Compile OpenSplat's kernels and return the module, which has `render`."""
    from torch.utils.cpp_extension import load

    folder = checkout.resolve() / "rasterizer" / "gsplat-cpu"
    if not (folder / "gsplat_cpu.cpp").is_file():
        raise SystemExit(f"{folder}: expected gsplat_cpu.cpp of a checkout of OpenSplat")
    name = f"opensplat_cpu{'_native' if native else ''}"
    build_folder = Path("build") / name
    build_folder.mkdir(parents=True, exist_ok=True)
    binding = build_folder / "binding.cpp"
    if not binding.exists() or binding.read_text() != BINDING:
        binding.write_text(BINDING)
    return load(
        name,
        [str(binding), str(folder / "gsplat_cpu.cpp")],
        extra_include_paths=[str(folder)],
        extra_cflags=["-O3", "-DNDEBUG", "-include", "numeric"] + ["-march=native"] * native,
        build_directory=str(build_folder),
    )


def projection_matrix(
    intrinsics: Float[torch.Tensor, "3 3"], width: int, height: int
) -> Float[torch.Tensor, "4 4"]:
    """Return a projection as OpenSplat takes it, OpenGL's.

    Its planes are at 1 and 10, around the scene, not at 0.001 and 1000 as in OpenSplat: it sorts by
    the projected depth, of which float32 would keep too few digits to compare the images.
    """
    near, far = 1.0, 10.0
    matrix = torch.zeros(4, 4)
    matrix[0, 0], matrix[1, 1] = 2 * intrinsics[0, 0] / width, 2 * intrinsics[1, 1] / height
    matrix[2, 2], matrix[2, 3], matrix[3, 2] = (
        (far + near) / (far - near),
        -far * near / (far - near),
        1,
    )
    return matrix


def measure(module: Any, count: int, width: int, height: int, repeats: int) -> dict[str, Any]:
    """Return the milliseconds of both, the ratio, and how far their images are apart."""
    tensors = random_gaussians(count, width, height, 3)
    trained = [tensor.requires_grad_() for tensor in tensors[:5]]
    means, quats, scales, opacities, colours = trained
    intrinsics, view = tensors[5][0], tensors[6][0]
    projection = projection_matrix(intrinsics, width, height)
    fx, fy, cx, cy = (float(intrinsics[i]) for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
    background, upstream = torch.zeros(3), torch.rand(height, width, 3)

    def theirs() -> Float[torch.Tensor, "height width 3"]:
        return module.render(
            means, quats, scales, opacities[:, None], colours, view, projection,
            fx, fy, cx, cy, width, height, background,
        )  # fmt: skip

    def ours() -> Float[torch.Tensor, "height width 3"]:
        return rasterize(*tensors, width, height, backend="cpu").features.squeeze(0)

    def timed(function: Callable[[], torch.Tensor]) -> tuple[float, float]:
        start = time.thread_time()
        image = function()
        middle = time.thread_time()
        torch.autograd.grad(image, trained, upstream)
        return 1e3 * (middle - start), 1e3 * (time.thread_time() - middle)

    timed(ours)
    timed(theirs)
    rows = np.array([(*timed(ours), *timed(theirs)) for _ in range(repeats)])
    with torch.no_grad():
        # OpenSplat's pixel centres are whole numbers, where its means are half a pixel less.
        difference = (ours() - theirs()).abs()
    whole = rows[:, 2:].sum(1) / rows[:, :2].sum(1)
    names = ("forward", "backward", "forward of OpenSplat", "backward of OpenSplat")
    return {
        "scene": [count, width, height],
        "milliseconds": dict(zip(names, np.median(rows, 0).tolist(), strict=True)),
        "ratio": float(np.median(whole)),
        "quartiles": np.quantile(whole, [0.25, 0.75]).tolist(),
        "median difference of the images": float(difference.median()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("checkout", type=Path, help="folder of OpenSplat's sources")
    parser.add_argument("--repeats", type=int, default=20, help="pairs of calls per scene")
    parser.add_argument(
        "--native", action="store_true", help="compile OpenSplat for this processor"
    )
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    module = build(options.checkout, options.native)
    result: dict[str, Any] = {"machine": machine(), "repeats": options.repeats, "scenes": []}
    for scene in SCENES:
        row = measure(module, *scene, options.repeats)
        result["scenes"].append(row)
        forward, backward, their_forward, their_backward = row["milliseconds"].values()
        print(
            "{:7d} Gaussians, {}x{}: ".format(*scene)
            + f"{forward:.2f} + {backward:.2f} ms, OpenSplat {their_forward:.2f} + "
            f"{their_backward:.2f} ms, ratio {row['ratio']:.2f} "
            f"({row['quartiles'][0]:.2f} to {row['quartiles'][1]:.2f}), "
            f"images differ by {row['median difference of the images']:.1e} (median)",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
