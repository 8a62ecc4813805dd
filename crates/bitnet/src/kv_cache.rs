//! Keys and values of tokens already read, so that each new token costs one position only.

use crate::config::Config;
use crate::ternary::Matrix;

/// Keys (after the rotary embedding) and values of every layer for the tokens read so far.
#[derive(Clone, Debug, PartialEq)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    kv_size: usize,
}

/// One layer's keys and values, `tokens * kv_size` values each.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LayerCache {
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

impl KvCache {
    /// An empty cache for a model of this configuration.
    pub fn new(config: &Config) -> Self {
        Self {
            layers: vec![LayerCache::default(); config.layers],
            kv_size: config.kv_size(),
        }
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.layers
            .first()
            .map_or(0, |l| l.keys.len() / self.kv_size)
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all tokens from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        for layer in &mut self.layers {
            layer.keys.truncate(len * self.kv_size);
            layer.values.truncate(len * self.kv_size);
        }
    }

    /// Whether the cache was made for a model of this shape.
    pub(crate) fn fits(&self, config: &Config) -> bool {
        self.layers.len() == config.layers && self.kv_size == config.kv_size()
    }

    /// Appends a layer's new keys and values, and gives all of them.
    pub(crate) fn extend(&mut self, layer: usize, keys: &Matrix, values: &Matrix) -> &LayerCache {
        let cache = &mut self.layers[layer];
        cache.keys.extend_from_slice(&keys.data);
        cache.values.extend_from_slice(&values.data);
        cache
    }
}
