//! The anomaly operators: what can be made wrong with a clip.

use serde::{Deserialize, Serialize};

use crate::class::Class;

/// One way of spoiling a clip. The name is the operator's identifier in sidecars and on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operator {
    /// Spatial: a hand with one to three fingers too many.
    ExtraFingers,
    /// Spatial: fingers grown together.
    FusedFingers,
    /// Spatial: fingers that are not there.
    MissingFingers,
    /// Spatial: a third arm or leg.
    ExtraLimb,
    /// Spatial: a forearm with its hand, or a shin with its foot, is not there.
    MissingLimb,
    /// Spatial: an arm, a hand or the head far too large or small.
    WrongProportion,
    /// Spatial: a forearm runs into the chest.
    LimbThroughBody,
    /// Spatial: a limb in front of the body is drawn behind it, or the other way round.
    OcclusionFlip,
    /// Spatial: an elbow or the knees bend the wrong way.
    BrokenJoint,
    /// Spatial: the person stands above or below the floor.
    Floating,
    /// Spatial: the features of the face run.
    MeltedFace,
    /// Appearance: a piece of clothing changes its colour.
    ClothDrift,
    /// Appearance: the pattern of the clothes becomes another.
    PatternSwap,
    /// Appearance: the face becomes another person's.
    FaceSwap,
    /// Appearance: colour and shape of the hair change.
    HairChange,
    /// Appearance: the brightness of clothes or skin jumps from frame to frame.
    Flicker,
    /// Appearance: a part of the body loses and regains its detail.
    LocalBlur,
    /// Appearance: the texture of the clothes slides over the body.
    TextureCrawl,
    /// Appearance: the colour of the clothes runs into the surroundings.
    ColourBleed,
    /// Appearance: a held thing fades away.
    ObjectFade,
    /// Motion: arms and head tremble from frame to frame.
    Jitter,
    /// Motion: the person freezes, then jumps to where the movement would be.
    FreezeJump,
    /// Motion: standing feet glide over the floor.
    FootSlide,
    /// Motion: an arm is elsewhere from one frame to the next.
    LimbSnap,
    /// Motion: legs or arms run backwards while the body goes forward.
    ReversedLimb,
    /// Motion: the whole body jumps aside within a frame.
    Teleport,
    /// Motion: the person's time runs back and forth while the camera's does not.
    TimeWarp,
    /// Motion: the head turns round on the neck.
    HeadSpin,
}

use Operator::*;

impl Operator {
    /// All of them.
    pub const ALL: [Operator; 28] = [
        ExtraFingers,
        FusedFingers,
        MissingFingers,
        ExtraLimb,
        MissingLimb,
        WrongProportion,
        LimbThroughBody,
        OcclusionFlip,
        BrokenJoint,
        Floating,
        MeltedFace,
        ClothDrift,
        PatternSwap,
        FaceSwap,
        HairChange,
        Flicker,
        LocalBlur,
        TextureCrawl,
        ColourBleed,
        ObjectFade,
        Jitter,
        FreezeJump,
        FootSlide,
        LimbSnap,
        ReversedLimb,
        Teleport,
        TimeWarp,
        HeadSpin,
    ];

    /// The class an operator belongs to.
    pub fn class(self) -> Class {
        match self {
            ExtraFingers | FusedFingers | MissingFingers | ExtraLimb | MissingLimb
            | WrongProportion | LimbThroughBody | OcclusionFlip | BrokenJoint | Floating
            | MeltedFace => Class::Spatial,
            ClothDrift | PatternSwap | FaceSwap | HairChange | Flicker | LocalBlur
            | TextureCrawl | ColourBleed | ObjectFade => Class::Appearance,
            Jitter | FreezeJump | FootSlide | LimbSnap | ReversedLimb | Teleport | TimeWarp
            | HeadSpin => Class::Motion,
        }
    }

    /// Operators of one family look alike; splits hold out whole families.
    pub fn family(self) -> &'static str {
        match self {
            ExtraFingers | FusedFingers | MissingFingers => "hand",
            ExtraLimb | MissingLimb => "limb-count",
            WrongProportion => "proportion",
            LimbThroughBody => "interpenetration",
            OcclusionFlip => "order",
            BrokenJoint => "joint",
            Floating => "contact",
            MeltedFace => "face",
            ClothDrift | PatternSwap => "clothes",
            FaceSwap | HairChange => "identity",
            Flicker => "flicker",
            LocalBlur => "detail",
            TextureCrawl => "crawl",
            ColourBleed => "bleed",
            ObjectFade => "vanish",
            Jitter => "tremor",
            FreezeJump => "freeze",
            TimeWarp => "time",
            FootSlide => "contact-slide",
            LimbSnap => "snap",
            Teleport => "teleport",
            ReversedLimb => "phase",
            HeadSpin => "spin",
        }
    }

    /// Families that training never sees: two or three a class, of every size of effect.
    pub const HELD_OUT_FAMILIES: [&'static str; 7] = [
        "joint", "contact", "bleed", "crawl", "vanish", "teleport", "phase",
    ];

    /// Whether training never sees it.
    pub fn held_out(self) -> bool {
        Self::HELD_OUT_FAMILIES.contains(&self.family())
    }

    /// Whether a clip made by it can be told from a real one at all. An arm drawn behind the body is an arm held behind the back, in a
    /// single view: that operator is used when asked for, and never drawn.
    pub fn can_be_told(self) -> bool {
        self != OcclusionFlip
    }

    /// The identifier, for example `foot-slide`.
    pub fn name(self) -> String {
        // The serialised form of a unit variant is a string.
        serde_json::to_value(self)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// The operator of an identifier.
    pub fn from_name(name: &str) -> Option<Operator> {
        Operator::ALL.into_iter().find(|o| o.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_operators_seen_and_held_out() {
        for class in Class::FORGED {
            let of: Vec<_> = Operator::ALL
                .into_iter()
                .filter(|o| o.class() == class)
                .collect();
            assert!(of.len() >= 8);
            assert!(of.iter().filter(|o| !o.held_out()).count() >= 4);
            assert!(of.iter().filter(|o| o.held_out()).count() >= 2);
        }
        for family in Operator::HELD_OUT_FAMILIES {
            assert!(
                Operator::ALL.iter().any(|o| o.family() == family),
                "{family}"
            );
        }
    }

    #[test]
    fn names_are_read_back() {
        for o in Operator::ALL {
            assert_eq!(Operator::from_name(&o.name()), Some(o));
        }
        assert_eq!(Operator::FootSlide.name(), "foot-slide");
    }
}
