//! What the two parts of the native network are made of: convolutions and matrices over named tensors, and differences in time.

use std::collections::HashMap;

use candle_core::Tensor;

use super::conv::conv3;
use crate::error::Result;

/// Named tensors, which may be variables.
pub(super) type Tensors = HashMap<String, Tensor>;

/// A rectified 3 × 3 convolution, `[N, H, W, C]` to `[N, H', W', D]`.
pub(super) fn conv(t: &Tensors, name: &str, stride: usize, x: &Tensor) -> Result<Tensor> {
    let (w, b) = (&t[&format!("{name}.weight")], &t[&format!("{name}.bias")]);
    conv3(x, w, b, stride)
}

/// The last dimension through a matrix.
pub(super) fn map(t: &Tensors, name: &str, x: &Tensor) -> Result<Tensor> {
    let (w, b) = (&t[&format!("{name}.weight")], &t[&format!("{name}.bias")]);
    let mut shape = x.dims().to_vec();
    let width = shape.pop().unwrap_or(1);
    let y = x.reshape(((), width))?.matmul(&w.t()?)?.broadcast_add(b)?;
    shape.push(w.dim(0)?);
    Ok(y.reshape(shape)?)
}

/// Residual layers over time with these dilations, `[B, T, D]`; frames outside count as the nearest one.
pub(super) fn over_time(
    t: &Tensors,
    name: &str,
    dilations: &[isize],
    x: &Tensor,
) -> Result<Tensor> {
    let mut x = x.clone();
    for (i, &d) in dilations.iter().enumerate() {
        let joined = Tensor::cat(&[shifted(&x, -d)?, x.clone(), shifted(&x, d)?], 2)?;
        x = (&x + map(t, &format!("{name}.t{i}"), &joined)?.relu()?)?;
    }
    Ok(x)
}

/// `[B, T, D]` to `[B, T, 3 D]`: beside each value how much it changes from frame to frame, `|x_t - x_{t-1}|`, and how
/// unevenly, `|x_{t+1} - 2 x_t + x_{t-1}|`; frames outside count as the nearest one.
pub(super) fn with_changes(x: &Tensor) -> Result<Tensor> {
    let before = shifted(x, -1)?;
    let first = (x - &before)?;
    let second = ((shifted(x, 1)? - x)? - &first)?;
    Ok(Tensor::cat(
        &[x, &(first.abs()? * 2.0)?, &(second.abs()? * 2.0)?],
        2,
    )?)
}

/// `x_{t + by}` along the second dimension, frames outside replaced by the nearest one.
fn shifted(x: &Tensor, by: isize) -> Result<Tensor> {
    let t = x.dim(1)?;
    let k = by.unsigned_abs().min(t - 1);
    let joined = if by == 0 {
        return Ok(x.clone());
    } else if by > 0 {
        let mut all = vec![x.narrow(1, k, t - k)?];
        all.extend(
            (0..k)
                .map(|_| x.narrow(1, t - 1, 1))
                .collect::<candle_core::Result<Vec<_>>>()?,
        );
        all
    } else {
        let mut all = (0..k)
            .map(|_| x.narrow(1, 0, 1))
            .collect::<candle_core::Result<Vec<_>>>()?;
        all.push(x.narrow(1, 0, t - k)?);
        all
    };
    Ok(Tensor::cat(&joined, 1)?)
}

/// `[N, H, W, C]` at twice the size, each value four times.
pub(super) fn double(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let y = x
        .reshape((n, h, 1, w, 1, c))?
        .broadcast_as((n, h, 2, w, 2, c))?;
    Ok(y.reshape((n, 2 * h, 2 * w, c))?)
}

/// Mean and largest value over the places of each map, `[N, H, W, C]` to `[N, 2 C]`.
pub(super) fn pooled(x: &Tensor) -> Result<Tensor> {
    let (n, _, _, c) = x.dims4()?;
    let x = x.reshape((n, (), c))?;
    Ok(Tensor::cat(&[x.mean(1)?, x.max(1)?], 1)?)
}
