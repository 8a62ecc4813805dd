//! Places a model's weights: which feature goes to which block, and what every product's numbers can grow to.

use num_complex::Complex64;
use tacit_bitnet::{
    Attention as AttentionKind, Calibration, Config, LayerCalibration, LayerWeights, Model,
    TernaryMatrix,
};

use crate::{
    EnsiError,
    layout::{Half, Layout},
    machine::Mask,
    ternary_layer::{Place, Source, TernaryLayer},
    transformer::{
        Heads, Layer, Linear, Room, Sides, Transformer,
        attention::{AttentionMasks, HeadLayout, Projection},
        cached::CacheLayout,
        rows::{RowSeries, Rows},
    },
};

impl Transformer {
    /// Places `model` for ring dimension `n`; the window is the calibration's.
    ///
    /// # Errors
    /// When the model does not use sigmoid attention, the calibration belongs to another shape, or a size does not fit the layout.
    pub fn new(model: &Model, calibration: &Calibration, n: usize) -> Result<Self, EnsiError> {
        Self::build(model, calibration, n, None, Room::Beside)
    }

    /// Places `model` for decode steps of one token over a cache of the calibration's window. A vector has `tokens` slots for each
    /// feature, all of the same token: fewer make smaller ciphertexts but larger keys.
    ///
    /// # Errors
    /// As [`new`](Self::new), and when the heads do not fit the step's layout.
    pub fn decoder(
        model: &Model,
        calibration: &Calibration,
        n: usize,
        tokens: usize,
    ) -> Result<Self, EnsiError> {
        Self::build(model, calibration, n, Some(tokens), Room::Beside)
    }

    /// Slots a feature with which a step's linear layers leave all they have in real parts, so that every refresh takes one polynomial: 8 if that
    /// is enough, else 4. Fewer would make the keys of the ternary products too large: they take `16 N^2/(2S)` bytes for `S` slots, 256 MiB for
    /// 8 and 512 MiB for 4 at `N = 2^16`.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] when the heads do not fit the window.
    pub fn step_tokens(
        model: &Model,
        calibration: &Calibration,
        n: usize,
    ) -> Result<usize, EnsiError> {
        let config = &model.config;
        let window = Layout::new(n, calibration.context)?;
        let heads = HeadLayout::new(
            window,
            config.heads,
            config.queries_per_kv(),
            config.head_dim,
        )?;
        let fits = |tokens: usize| {
            let layout = Layout::new(n, tokens)?;
            let cache = CacheLayout::new(heads.clone(), layout)?;
            Ok::<bool, EnsiError>(
                layout.beside(config.intermediate_size).is_some()
                    && cache.imaginary_beside().is_some(),
            )
        };
        let most = window.tokens().min(8);
        Ok(if matches!(fits(most), Ok(true)) {
            most
        } else {
            most.min(4)
        })
    }

    /// [`new`](Self::new), or [`decoder`](Self::decoder) with `step` slots a feature, with a choice of where the mean square of the attention's norm goes.
    ///
    /// # Errors
    /// As those.
    pub fn build(
        model: &Model,
        calibration: &Calibration,
        n: usize,
        step: Option<usize>,
        mean_square: Room,
    ) -> Result<Self, EnsiError> {
        let config = &model.config;
        if !config.attention.is_sigmoid() {
            return Err(EnsiError::Shape(
                "the checkpoint uses softmax attention; encrypted inference needs sigmoid attention: `tacit model sigmoid` gives it biases (with --normalised nothing is lost), `tacit train` trains with it".into(),
            ));
        }
        let normalised = config.attention == AttentionKind::NormalisedSigmoid;
        if calibration
            .layers
            .iter()
            .any(|c| RowSeries::of(c).is_some() != normalised)
        {
            return Err(EnsiError::Calibration(format!(
                "model and calibration disagree on whether rows of attention are normalised (the model says {}); run the calibration for this model",
                config.attention.name()
            )));
        }
        if calibration.layers.len() != config.layers {
            return Err(EnsiError::Calibration(format!(
                "it has {} layers, the model {}; run the calibration for this model",
                calibration.layers.len(),
                config.layers
            )));
        }
        let layout = Layout::new(n, calibration.context)?;
        let heads = HeadLayout::new(
            layout,
            config.heads,
            config.queries_per_kv(),
            config.head_dim,
        )?;
        let (layout, heads, rows) = match step {
            None => {
                let masks = AttentionMasks::new(&heads, config.rope_theta);
                let rows = normalised.then(|| Rows::window(&heads)).transpose()?;
                let window = Heads::Window {
                    layout: heads,
                    masks,
                };
                (layout, window, rows)
            }
            Some(tokens) => {
                let layout = Layout::new(n, tokens)?;
                let cache = CacheLayout::new(heads, layout)?;
                let rows = normalised.then(|| Rows::step(&cache)).transpose()?;
                (layout, Heads::Step(cache), rows)
            }
        };
        let norm_beside = match mean_square {
            Room::Beside => layout.beside(config.hidden_size),
            Room::Imaginary => None,
        };
        let layers = model
            .layers
            .iter()
            .zip(&calibration.layers)
            .enumerate()
            .map(|(i, (weights, calibration))| {
                place_layer(
                    &layout,
                    &heads,
                    config,
                    norm_beside,
                    i,
                    weights,
                    calibration,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        let log_factor: f64 = calibration
            .layers
            .iter()
            .flat_map(|c| [&c.input_norm, &c.post_attention_norm])
            .map(|s| (2.0 / (config.hidden_size as f64 * (s.hi - s.lo))).log2())
            .sum::<f64>()
            / (2 * calibration.layers.len()) as f64;
        Ok(Self {
            sides: Sides::new(&layout),
            norm_beside: norm_beside.is_some(),
            rows,
            layout,
            hidden: config.hidden_size,
            ffn: config.intermediate_size,
            heads,
            rope_theta: config.rope_theta,
            layers,
            residual_factor: log_factor.exp2(),
        })
    }
}

/// Columns of a vector of real features stored one block each.
fn vector_columns(layout: &Layout, features: usize) -> Vec<Source> {
    (0..features)
        .map(|i| Source {
            ciphertext: i / layout.blocks(),
            block: i % layout.blocks(),
        })
        .collect()
}

/// The half of an output in which the `index`-th real ciphertext comes back: two of them share a refresh.
fn half_of(index: usize) -> (usize, Half) {
    (
        index / 2,
        if index.is_multiple_of(2) {
            Half::Re
        } else {
            Half::Im
        },
    )
}

/// Places of feature `i` of one of two vectors that share a refresh, repetitions included: side by side if there is room, else in the two halves.
fn paired_places(layout: &Layout, feature: usize, features: usize, half: Half) -> Vec<Place> {
    let places = layout.positions(feature, features).into_iter();
    match layout.beside(features) {
        Some(beside) => places
            .filter(|(_, block)| *block < beside)
            .map(|(ciphertext, block)| Place {
                ciphertext,
                block: block + if half == Half::Im { beside } else { 0 },
                half: Half::Re,
            })
            .collect(),
        None => places
            .map(|(ciphertext, block)| Place {
                ciphertext,
                block,
                half,
            })
            .collect(),
    }
}

/// Places of feature `i` of a vector, repetitions included.
fn vector_places(layout: &Layout, feature: usize, features: usize) -> Vec<Place> {
    layout
        .positions(feature, features)
        .into_iter()
        .map(|(index, block)| {
            let (ciphertext, half) = half_of(index);
            Place {
                ciphertext,
                block,
                half,
            }
        })
        .collect()
}

/// Gains as masks, or `None` when all are one.
fn gain_masks(
    gains: &[f32],
    positions: impl Fn(usize) -> Vec<(usize, usize)>,
    ciphertexts: usize,
    layout: &Layout,
) -> Option<Vec<Mask>> {
    if gains.iter().all(|g| *g == 1.0) {
        return None;
    }
    let mut slots = vec![vec![Complex64::default(); layout.slots()]; ciphertexts];
    for (i, g) in gains.iter().enumerate() {
        for (ciphertext, block) in positions(i) {
            for t in 0..layout.tokens() {
                slots[ciphertext][layout.slot(block, t)] = Complex64::new(f64::from(*g), 0.0);
            }
        }
    }
    Some(slots.into_iter().map(Mask::once).collect())
}

/// `max |y| / scale` in units of the integer product, at least one.
fn integer_bound(max_abs: f64, matrix: &TernaryMatrix) -> f64 {
    (max_abs / f64::from(matrix.scale())).max(1.0)
}

fn place_layer(
    layout: &Layout,
    attention: &Heads,
    config: &Config,
    norm_beside: Option<usize>,
    index: usize,
    weights: &LayerWeights,
    calibration: &LayerCalibration,
) -> Result<Layer, EnsiError> {
    let max = &calibration.max_abs;
    let hidden = config.hidden_size;
    let name = |what: &str| format!("layer {index} {what}");

    // q, k, v: complex pairs (j, j + d/2), one replica position each; q conjugated
    let mut qkv = TernaryLayer::new(
        name("q, k, v"),
        layout.ciphertexts(hidden),
        vector_columns(layout, hidden),
    )?;
    let half = config.head_dim / 2;
    let heads = match attention {
        Heads::Window { layout, .. } => layout,
        Heads::Step(cache) => cache.window(),
    };
    let packed =
        |projection, index: usize, pair: usize, in_group: usize, half: Half| match attention {
            Heads::Window { layout, .. } => {
                let (ciphertext, replica) = layout.packed(index, projection);
                Place {
                    ciphertext,
                    block: layout.block(pair, replica, in_group),
                    half,
                }
            }
            Heads::Step(cache) => cache.packed(index, projection, pair, in_group, half),
        };
    let mut place =
        |projection, matrix: &TernaryMatrix, source: usize, index: usize, in_group: usize| {
            for j in 0..config.head_dim {
                let mut row = matrix.row_codes(source * config.head_dim + j);
                let half = if j < half { Half::Re } else { Half::Im };
                if projection == Projection::Q && half == Half::Im {
                    row.iter_mut().for_each(|w| *w = -*w);
                }
                let place = packed(projection, index, j % (config.head_dim / 2), in_group, half);
                qkv.push_row(&row, vec![place])?;
            }
            Ok::<(), EnsiError>(())
        };
    for (index, set) in heads.sets().iter().enumerate() {
        for (in_group, &head) in set.iter().enumerate() {
            place(Projection::K, &weights.k, head, index, in_group)?;
            place(Projection::V, &weights.v, head, index, in_group)?;
        }
    }
    for head in 0..config.heads {
        place(
            Projection::Q,
            &weights.q,
            head,
            head / heads.group,
            head % heads.group,
        )?;
    }
    let qkv = Linear {
        layer: qkv,
        max_integer: integer_bound(max.q, &weights.q)
            .max(integer_bound(max.k, &weights.k))
            .max(integer_bound(max.v, &weights.v)),
    };

    // o: reads real and imaginary parts of each group, and the mean square
    let groups = match attention {
        Heads::Window { layout, .. } => layout.groups(),
        Heads::Step(_) => 1,
    };
    let carries = calibration.attn_sub_norm.is_some();
    let mut columns: Vec<Source> = (0..hidden)
        .map(|feature| {
            let (head, j) = (feature / config.head_dim, feature % config.head_dim);
            match attention {
                Heads::Window { layout, .. } => Source {
                    ciphertext: 2 * (head / layout.group) + j / half,
                    block: layout.block(j % half, 0, head % layout.group),
                },
                Heads::Step(cache) => Source {
                    ciphertext: j / half,
                    block: cache.output(head, j % half),
                },
            }
        })
        .collect();
    let attn_columns = columns.clone();
    if carries {
        columns.push(Source {
            ciphertext: 2 * groups,
            block: 0,
        });
    }
    let mut o = TernaryLayer::new(name("o"), 2 * groups + usize::from(carries), columns)?;
    for feature in 0..hidden {
        let mut row = weights.o.row_codes(feature);
        row.resize(hidden + usize::from(carries), 0);
        let places = if carries && norm_beside.is_some() {
            paired_places(layout, feature, hidden, Half::Re)
        } else {
            vector_places(layout, feature, hidden)
        };
        o.push_row(&row, places)?;
    }
    if carries {
        let mut row = vec![0i8; hidden + 1];
        row[hidden] = 1;
        let (ciphertext, half, first) = match norm_beside {
            Some(beside) => (0, Half::Re, beside),
            None => {
                let (ciphertext, half) = half_of(layout.ciphertexts(hidden));
                (ciphertext, half, 0)
            }
        };
        let places = (first..layout.blocks())
            .map(|block| Place {
                ciphertext,
                block,
                half,
            })
            .collect();
        o.push_row(&row, places)?;
    }
    // the product sees the attention output before its norm
    let o = Linear {
        layer: o,
        max_integer: integer_bound(raw_output_bound(calibration), &weights.o),
    };

    // gate and up side by side, or gate in the real and up in the imaginary half of the same block
    let ffn = config.intermediate_size;
    let mut gate_up = TernaryLayer::new(
        name("gate, up"),
        layout.ciphertexts(hidden),
        vector_columns(layout, hidden),
    )?;
    for feature in 0..ffn {
        for (matrix, half) in [(&weights.gate, Half::Re), (&weights.up, Half::Im)] {
            let places = paired_places(layout, feature, ffn, half);
            gate_up.push_row(&matrix.row_codes(feature), places)?;
        }
    }
    let gate_up = Linear {
        layer: gate_up,
        max_integer: integer_bound(max.gate, &weights.gate).max(integer_bound(max.up, &weights.up)),
    };
    let mut down = TernaryLayer::new(
        name("down"),
        layout.ciphertexts(ffn),
        vector_columns(layout, ffn),
    )?;
    for feature in 0..hidden {
        down.push_row(
            &weights.down.row_codes(feature),
            vector_places(layout, feature, hidden),
        )?;
    }
    let down = Linear {
        layer: down,
        max_integer: integer_bound(max.down, &weights.down),
    };

    let hidden_positions = |i: usize| layout.positions(i, hidden);
    let attn_gain = weights.attn_sub_norm.as_ref().and_then(|gains| {
        gain_masks(
            gains,
            |i| vec![(attn_columns[i].ciphertext, attn_columns[i].block)],
            2 * groups,
            layout,
        )
    });
    let ffn_gain = weights.ffn_sub_norm.as_ref().and_then(|gains| {
        gain_masks(
            gains,
            |i| layout.positions(i, ffn),
            layout.ciphertexts(ffn),
            layout,
        )
    });
    let scale = |matrix: &TernaryMatrix| f64::from(matrix.scale());
    Ok(Layer {
        qkv,
        o,
        gate_up,
        down,
        head_bias: weights.head_bias.iter().map(|b| f64::from(*b)).collect(),
        score_factor: scale(&weights.q) * scale(&weights.k) / (config.head_dim as f64).sqrt(),
        value_scale: scale(&weights.v),
        o_scale: scale(&weights.o),
        gate_scale: scale(&weights.gate),
        up_scale: scale(&weights.up),
        down_scale: scale(&weights.down),
        calibration: calibration.clone(),
        input_gain: gain_masks(
            &weights.input_norm,
            hidden_positions,
            layout.ciphertexts(hidden),
            layout,
        ),
        attn_gain,
        post_gain: gain_masks(
            &weights.post_attention_norm,
            hidden_positions,
            layout.ciphertexts(hidden),
            layout,
        ),
        ffn_gain,
    })
}

/// Bound on `W_o a` for the attention output before its sub-norm: the calibrated `max |o|` is of the normalised one, and the
/// norm divides by at least `sqrt(ms)`; the largest mean square of the calibration bounds the factor.
fn raw_output_bound(calibration: &LayerCalibration) -> f64 {
    match &calibration.attn_sub_norm {
        Some(_) => calibration.max_abs.o * calibration.ms.attn[1].sqrt(),
        None => calibration.max_abs.o,
    }
}
