//! Rectified 3 × 3 convolutions as one matrix product, with their gradient.
//!
//! Maps are `[N, H, W, C]`, channels last; neighbourhoods are laid out as rows ("unfolded"), so that a neighbourhood is three runs of
//! memory and the product's result is again a map. With `U` the unfolded map, `W` the kernel, `G` the gradient of the result:
//!
//! ```text
//! Y = max(U Wᵀ + b, 0)        G' = G where Y > 0, else 0
//! ∂W = G'ᵀ U                  ∂b = Σ_rows G'              ∂map = fold(G' W)
//! ```
//!
//! `U` is laid out again for the gradient rather than kept: copying costs less than holding nine times the map.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Layout, Shape, Tensor};
use rayon::prelude::*;

use crate::error::Result;

/// `[N, H, W, C]` to `[N · H' · W', 9 · C]`: 3 × 3 neighbourhoods, zero outside, `H' = ceil(H / stride)`.
#[derive(Clone, Copy, Debug)]
struct Unfold {
    dims: [usize; 4],
    stride: usize,
}

impl Unfold {
    fn out(&self) -> (usize, usize) {
        (
            self.dims[1].div_ceil(self.stride),
            self.dims[2].div_ceil(self.stride),
        )
    }

    /// Calls `f(offset in the row, offset in the map, length)` for the runs of output position `(y, x)` of one image.
    #[inline]
    fn runs(&self, y: usize, x: usize, mut f: impl FnMut(usize, usize, usize)) {
        let [_, h, w, c] = self.dims;
        let (cy, cx) = ((y * self.stride) as isize, (x * self.stride) as isize);
        let (x0, x1) = ((cx - 1).max(0), (cx + 1).min(w as isize - 1));
        for dy in 0..3isize {
            let sy = cy + dy - 1;
            if sy < 0 || sy >= h as isize {
                continue;
            }
            let skip = (x0 - (cx - 1)) as usize;
            f(
                (dy as usize * 3 + skip) * c,
                (sy as usize * w + x0 as usize) * c,
                (x1 - x0 + 1) as usize * c,
            );
        }
    }

    fn forward(&self, map: &[f32]) -> Vec<f32> {
        let [n, h, w, c] = self.dims;
        let (oh, ow) = self.out();
        let mut out = vec![0f32; n * oh * ow * 9 * c];
        out.par_chunks_mut(oh * ow * 9 * c)
            .zip(map.par_chunks(h * w * c))
            .for_each(|(rows, map)| {
                for (i, row) in rows.chunks_mut(9 * c).enumerate() {
                    self.runs(i / ow, i % ow, |to, from, len| {
                        row[to..to + len].copy_from_slice(&map[from..from + len])
                    });
                }
            });
        out
    }

    /// The transpose: rows added back onto the map.
    fn backward(&self, rows: &[f32]) -> Vec<f32> {
        let [n, h, w, c] = self.dims;
        let (oh, ow) = self.out();
        let mut out = vec![0f32; n * h * w * c];
        out.par_chunks_mut(h * w * c)
            .zip(rows.par_chunks(oh * ow * 9 * c))
            .for_each(|(map, rows)| {
                for (i, row) in rows.chunks(9 * c).enumerate() {
                    self.runs(i / ow, i % ow, |from, to, len| {
                        for (m, r) in map[to..to + len].iter_mut().zip(&row[from..from + len]) {
                            *m += r;
                        }
                    });
                }
            });
        out
    }
}

fn contiguous<'a>(storage: &'a CpuStorage, layout: &Layout) -> candle_core::Result<&'a [f32]> {
    let Some((a, b)) = layout.contiguous_offsets() else {
        candle_core::bail!("unfold needs a contiguous map")
    };
    Ok(&storage.as_slice::<f32>()?[a..b])
}

impl CustomOp1 for Unfold {
    fn name(&self) -> &'static str {
        "unfold"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let (oh, ow) = self.out();
        let rows = self.forward(contiguous(storage, layout)?);
        Ok((
            CpuStorage::F32(rows),
            Shape::from((self.dims[0] * oh * ow, 9 * self.dims[3])),
        ))
    }
}

#[derive(Clone, Copy, Debug)]
struct Fold(Unfold);

impl CustomOp1 for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let map = self.0.backward(contiguous(storage, layout)?);
        Ok((CpuStorage::F32(map), Shape::from(self.0.dims.to_vec())))
    }
}

/// A gradient where the rectified result is above 0, else 0.
struct Passed;

impl CustomOp2 for Passed {
    fn name(&self) -> &'static str {
        "passed"
    }

    fn cpu_fwd(
        &self,
        gradient: &CpuStorage,
        gl: &Layout,
        result: &CpuStorage,
        rl: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let passed = contiguous(gradient, gl)?
            .iter()
            .zip(contiguous(result, rl)?)
            .map(|(g, y)| if *y > 0.0 { *g } else { 0.0 })
            .collect();
        Ok((CpuStorage::F32(passed), rl.shape().clone()))
    }
}

/// The convolution, of a contiguous map, a kernel `[D, 9 · C]` and a bias `[D]`.
struct Rectified(Unfold);

impl CustomOp3 for Rectified {
    fn name(&self) -> &'static str {
        "rectified convolution"
    }

    fn cpu_fwd(
        &self,
        map: &CpuStorage,
        ml: &Layout,
        weight: &CpuStorage,
        wl: &Layout,
        bias: &CpuStorage,
        bl: &Layout,
    ) -> candle_core::Result<(CpuStorage, Shape)> {
        let [n, _, _, c] = self.0.dims;
        let (oh, ow) = self.0.out();
        let (rows, wide, d) = (n * oh * ow, 9 * c, wl.shape().dims2()?.0);
        let unfolded = CpuStorage::F32(self.0.forward(contiguous(map, ml)?));
        let product = unfolded.matmul(
            weight,
            (1, rows, d, wide),
            &Layout::contiguous((rows, wide)),
            &wl.transpose(0, 1)?,
        )?;
        let CpuStorage::F32(mut out) = product else {
            candle_core::bail!("a convolution is of 32-bit floats")
        };
        let bias = contiguous(bias, bl)?;
        for row in out.chunks_exact_mut(d) {
            for (y, b) in row.iter_mut().zip(bias) {
                *y = (*y + b).max(0.0);
            }
        }
        Ok((CpuStorage::F32(out), Shape::from((n, oh, ow, d))))
    }

    fn bwd(
        &self,
        map: &Tensor,
        weight: &Tensor,
        _: &Tensor,
        result: &Tensor,
        gradient: &Tensor,
    ) -> candle_core::Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let g = gradient
            .contiguous()?
            .apply_op2_no_bwd(result, &Passed)?
            .reshape(((), weight.dim(0)?))?;
        let of_map = if map.track_op() {
            Some(g.matmul(weight)?.apply_op1_no_bwd(&Fold(self.0))?)
        } else {
            None
        };
        let rows = map.apply_op1_no_bwd(&self.0)?;
        // As a product, for candle's sum over the first dimension is slow.
        let ones = Tensor::ones((1, g.dim(0)?), DType::F32, map.device())?;
        let of_bias = ones.matmul(&g)?.squeeze(0)?;
        Ok((of_map, Some(g.t()?.matmul(&rows)?), Some(of_bias)))
    }
}

/// A rectified 3 × 3 convolution of `map [N, H, W, C]` with `weight [D, 9 · C]` (rows of the kernel, columns, channels) and
/// `bias [D]`, zero outside: `[N, H', W', D]`, `H' = ceil(H / stride)`.
///
/// # Errors
/// When shapes do not fit.
pub(crate) fn conv3(map: &Tensor, weight: &Tensor, bias: &Tensor, stride: usize) -> Result<Tensor> {
    let (n, h, w, c) = map.dims4()?;
    let unfold = Unfold {
        dims: [n, h, w, c],
        stride,
    };
    Ok(map
        .contiguous()?
        .apply_op3(weight, bias, Rectified(unfold))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn it_is_candles_convolution_and_has_its_gradients() {
        for (h, w, stride) in [(6, 8, 1), (6, 8, 2), (5, 7, 2)] {
            let map = Var::randn(0f32, 1.0, (2, h, w, 3), &Device::Cpu).unwrap();
            let kernel = Var::randn(0f32, 1.0, (4, 27), &Device::Cpu).unwrap();
            let bias = Var::randn(0f32, 1.0, 4, &Device::Cpu).unwrap();
            let got = conv3(&map, &kernel, &bias, stride).unwrap();
            let oihw = kernel
                .reshape((4, 3, 3, 3))
                .unwrap()
                .permute((0, 3, 1, 2))
                .unwrap();
            let nchw = map.permute((0, 3, 1, 2)).unwrap();
            let want = nchw
                .contiguous()
                .unwrap()
                .conv2d(&oihw.contiguous().unwrap(), 1, stride, 1, 1)
                .unwrap();
            let want = want.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            let want = want.broadcast_add(&bias).unwrap().relu().unwrap();
            let difference = |a: &Tensor, b: &Tensor| {
                (a - b)
                    .unwrap()
                    .abs()
                    .unwrap()
                    .flatten_all()
                    .unwrap()
                    .max(0)
                    .unwrap()
                    .to_scalar::<f32>()
                    .unwrap()
            };
            assert_eq!(got.dims(), want.dims());
            assert!(difference(&got, &want) < 1e-4);
            let probe = got.randn_like(0.0, 1.0).unwrap();
            let a = (got * &probe)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            let b = (want * &probe)
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap();
            for v in [&map, &kernel, &bias] {
                assert!(difference(a.get(v).unwrap(), b.get(v).unwrap()) < 1e-3);
            }
        }
    }
}
