//! What the trainer computes is what the loader and the reference forward pass compute from the exported folder.

use tacit_bitnet::train::{
    AttentionKind, Corpus, Document, Network, TrainConfig, train_tokenizer, write_model,
};
use tacit_bitnet::{Attention, ForwardOptions, Functions, checkpoint};

#[test]
fn an_exported_model_gives_the_trainers_logits() {
    let text = "Returns the length of the list and removes the first element from it. ".repeat(20);
    let corpus = Corpus {
        documents: vec![Document {
            package: "a".into(),
            text,
        }],
    };
    let tokenizer = train_tokenizer(&corpus, 280).unwrap();
    for attention in [AttentionKind::Sigmoid, AttentionKind::Softmax] {
        let config = TrainConfig {
            hidden: 32,
            layers: 2,
            heads: 4,
            ffn: 40,
            vocab: 280,
            context: 12,
            attention,
            ..TrainConfig::default()
        };
        let mut network = Network::new(&config);
        network.norms.attn_eps = vec![0.003, 0.0007];
        let dir = tempfile::tempdir().unwrap();
        write_model(dir.path(), &network, &tokenizer).unwrap();
        let (model, report) = checkpoint::load(dir.path()).unwrap();
        assert!(
            (model.config.attn_sub_norm_eps(1) - 0.0007).abs() < 1e-9,
            "{report:?}"
        );
        let functions = match attention {
            AttentionKind::Sigmoid => Functions::ExactSigmoid,
            AttentionKind::Softmax => Functions::ExactSoftmax,
        };
        assert_eq!(
            model.config.attention == Attention::Sigmoid,
            attention == AttentionKind::Sigmoid
        );
        let ids: Vec<u32> = (0..12).map(|i| i * 23 % 280).collect();
        let want = network.as_exported().logits(&ids, ids.len()).unwrap();
        let got = model.logits(&ids, &ForwardOptions::new(functions)).unwrap();
        let largest = want.iter().fold(0f32, |m, x| m.max(x.abs()));
        for (a, b) in want.iter().zip(&got.data) {
            assert!(
                (a - b).abs() < 1e-4 * largest,
                "{attention:?}: {a} against {b}"
            );
        }
    }
}
