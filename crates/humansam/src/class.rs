//! The four answers: what is wrong with a clip, or nothing.

/// A class of anomaly, or none. The order is the paper's label order, so that `class as usize` is its label.
///
/// Source: HumanSAM (arXiv 2507.19924), section 3.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Something changes over time that should not: clothes, face, texture.
    Appearance = 0,
    /// A frame, taken alone, shows what cannot be: six fingers, an arm through the body.
    Spatial = 1,
    /// Each frame is possible, their succession is not.
    Motion = 2,
    /// Nothing is wrong.
    Real = 3,
}

impl Class {
    /// All four, in label order.
    pub const ALL: [Class; 4] = [
        Class::Appearance,
        Class::Spatial,
        Class::Motion,
        Class::Real,
    ];
    /// The three kinds of forgery, in label order.
    pub const FORGED: [Class; 3] = [Class::Appearance, Class::Spatial, Class::Motion];

    /// The paper's label: 0 appearance, 1 spatial, 2 motion, 3 real.
    pub fn label(self) -> usize {
        self as usize
    }

    /// The class of a label; `None` above 3.
    pub fn from_label(label: usize) -> Option<Class> {
        Class::ALL.get(label).copied()
    }

    /// Lower-case English name.
    pub fn name(self) -> &'static str {
        match self {
            Class::Appearance => "appearance",
            Class::Spatial => "spatial",
            Class::Motion => "motion",
            Class::Real => "real",
        }
    }

    /// The class of a [`Class::name`].
    pub fn from_name(name: &str) -> Option<Class> {
        Class::ALL.into_iter().find(|c| c.name() == name)
    }

    /// Whether the class is a forgery.
    pub fn is_forged(self) -> bool {
        self != Class::Real
    }
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_and_names_are_one_to_one() {
        for (i, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.label(), i);
            assert_eq!(Class::from_label(i), Some(class));
            assert_eq!(Class::from_name(class.name()), Some(class));
        }
        assert_eq!(Class::from_label(4), None);
        assert_eq!(Class::from_name("Real"), None);
    }
}
