//! From a [`Spec`] to a clip: draws everything, then plays it frame by frame.

mod choice;
mod truth;

use rayon::prelude::*;

use super::anomaly::Anomaly;
use super::body::{Body, Look, hsv};
use super::camera::Camera;
use super::flesh::{Builder, Prim};
use super::material::Expression;
use super::math::{M3, V3, v3};
use super::motion::{Action, Motion, PropPlace};
use super::raster::View;
use super::render::{Picture, Shown, picture};
use super::rng::Rng;
use super::scene::{Scene, Setting};
use super::sensor::Sensor;
use super::skeleton::{Joint, Pose, Skeleton, bone};
use super::{Rendered, SceneRecord, Spec};
use crate::class::Class;
use crate::clip::{Clip, Frame, Plane};
use crate::error::{HumansamError, Result};
use crate::flow::Flow;

/// Largest side and number of frames that a spec may ask for.
const LARGEST: usize = 4096;
const LONGEST: usize = 100_000;
/// Makes a clip.
///
/// # Errors
/// When sizes are 0 or beyond 4096, a severity lies outside of `[0, 1]`, or the operator is not of the class.
pub fn sample(spec: &Spec) -> Result<Rendered> {
    let all: Vec<usize> = (0..spec.frames).collect();
    play(spec, &all, true)
}

/// Some frames of the clip that [`sample`] makes, without flow.
///
/// # Errors
/// As for [`sample`], and when a frame lies beyond the clip.
pub fn sample_frames(spec: &Spec, frames: &[usize]) -> Result<Rendered> {
    if let Some(f) = frames.iter().find(|f| **f >= spec.frames) {
        return Err(HumansamError::Argument(format!(
            "frame {f} of a clip of {} frames",
            spec.frames
        )));
    }
    play(spec, frames, false)
}

fn play(spec: &Spec, frames: &[usize], flow: bool) -> Result<Rendered> {
    check(spec)?;
    let take = Take::draw(spec);
    let mut rendered = Rendered {
        clip: Clip {
            width: spec.width,
            height: spec.height,
            fps: take.fps,
            frames: Vec::with_capacity(frames.len()),
        },
        class: spec.class,
        anomaly: take.anomaly.as_ref().map(|a| take.record(a, spec)),
        scene: SceneRecord {
            action: take.motion.action,
            setting: take.scene.setting,
            framing: take.camera.framing,
            noise: take.sensor.noise,
            blur: take.sensor.blur,
            quality: take.sensor.quality,
        },
        depth: Vec::new(),
        parts: Vec::new(),
        flow: Vec::new(),
        mask: Vec::new(),
    };
    // Frames do not depend on each other, so the order in which threads make them does not matter.
    let made: Vec<Made> = frames
        .par_iter()
        .map(|&frame| take.made(spec, frame, flow))
        .collect();
    for made in made {
        rendered.clip.frames.push(made.pixels);
        if let Some(maps) = made.maps {
            rendered.depth.push(maps.depth);
            rendered.parts.push(maps.parts);
            rendered.mask.push(maps.mask);
            rendered.flow.extend(maps.flow);
        }
    }
    Ok(rendered)
}

fn check(spec: &Spec) -> Result<()> {
    let bad = |m: String| Err(HumansamError::Argument(m));
    if !(8..=LARGEST).contains(&spec.width) || !(8..=LARGEST).contains(&spec.height) {
        return bad(format!(
            "generated clips have sides of 8 to {LARGEST} pixels, not {}x{}",
            spec.width, spec.height
        ));
    }
    if !(1..=LONGEST).contains(&spec.frames) {
        return bad(format!(
            "generated clips have 1 to {LONGEST} frames, not {}",
            spec.frames
        ));
    }
    if !(1..=4).contains(&spec.supersample) {
        return bad(format!(
            "1 to 4 rays a pixel and direction, not {}",
            spec.supersample
        ));
    }
    if !(0.0..=4.0).contains(&spec.nuisance) {
        return bad(format!(
            "the strength of nuisances lies in 0 to 4, not {}",
            spec.nuisance
        ));
    }
    if let Some(fps) = spec.fps
        && !(fps.is_finite() && (0.1..=1000.0).contains(&fps))
    {
        return bad(format!("frame rates lie in 0.1 to 1000, not {fps}"));
    }
    if let Some(s) = spec.severity
        && !(0.0..=1.0).contains(&s)
    {
        return bad(format!("a severity lies in 0 to 1, not {s}"));
    }
    if spec.nobody && spec.class != Class::Real {
        return bad(format!(
            "a clip without a person cannot have an anomaly of class {}",
            spec.class
        ));
    }
    if let Some(o) = spec.operator
        && o.class() != spec.class
    {
        return bad(format!(
            "operator {} makes clips of class {}, not {}",
            o.name(),
            o.class(),
            spec.class
        ));
    }
    Ok(())
}

/// Everything that was drawn for one clip.
struct Take {
    body: Body,
    look: Look,
    motion: Motion,
    scene: Scene,
    camera: Camera,
    sensor: Sensor,
    anomaly: Option<Anomaly>,
    fps: f64,
    start: f32,
    prop_colours: (V3, V3),
    /// Things that stand still.
    objects: Vec<Prim>,
    nobody: bool,
}

/// What stands before the camera at one instant.
struct Shot {
    prims: Vec<Prim>,
    look: Look,
    expression: Expression,
    view: View,
    place: V3,
    opacity: f32,
}

/// One frame with what is known of it.
struct Made {
    pixels: Frame,
    maps: Option<Maps>,
}

struct Maps {
    depth: Plane,
    parts: Vec<u8>,
    mask: Plane,
    flow: Option<Flow>,
}

impl Take {
    fn made(&self, spec: &Spec, frame: usize, flow: bool) -> Made {
        let (pixels, shot, raw) = self.frame(spec, frame);
        let maps = spec.maps.then(|| Maps {
            mask: self.mask(spec, frame, &shot, &raw),
            flow: (flow && frame + 1 < spec.frames).then(|| self.flow(spec, frame, &shot, &raw)),
            depth: Plane {
                width: spec.width,
                height: spec.height,
                data: raw.depth,
            },
            parts: raw.part,
        });
        Made { pixels, maps }
    }

    fn draw(spec: &Spec) -> Take {
        let seed = spec.seed;
        let mut rng = Rng::named(seed, "body");
        let body = Body::draw(&mut rng);
        let mut look = Look::draw(&mut Rng::named(seed, "look"), &body);
        let mut rng = Rng::named(seed, "motion");
        let actions: Vec<Action> = Action::ALL
            .into_iter()
            .filter(|a| spec.actions.admits(Action::HELD_OUT.contains(a)))
            .collect();
        let drawn = rng.pick(&actions);
        let action = spec.action.unwrap_or(drawn);
        let motion = Motion::draw(&mut rng, action);
        if matches!(action, Action::Sit | Action::Squat | Action::Jump)
            && look.legwear == super::body::Legwear::Skirt
        {
            look.legwear = super::body::Legwear::Shorts;
        }
        let mut rng = Rng::named(seed, "scene");
        let settings: Vec<Setting> = Setting::ALL
            .into_iter()
            .filter(|s| spec.settings.admits(Setting::HELD_OUT.contains(s)))
            .collect();
        let drawn = rng.pick(&settings);
        let scene = Scene::draw(&mut rng, spec.setting.unwrap_or(drawn), action);
        let prop_colours = (hsv(rng.unit(), 0.75, 0.8), hsv(rng.unit(), 0.6, 0.9));
        let mut rng = Rng::named(seed, "nuisance");
        let rates = [8.0, 10.0, 12.0, 15.0, 24.0, 25.0, 30.0];
        let drawn = rng.pick(&rates);
        let fps = spec.fps.unwrap_or(drawn);
        let sensor = Sensor::draw(&mut rng, spec.nuisance);
        let start = rng.range(0.0, 4.0);
        let furniture = motion.furniture(&body);
        let camera = Camera::draw(
            &mut Rng::named(seed, "camera"),
            &body,
            furniture.heading,
            spec.framing,
            spec.nuisance,
        );
        let mut objects = Builder::new();
        scene.objects(&mut objects, &furniture);
        let mut take = Take {
            body,
            look,
            motion,
            scene,
            camera,
            sensor,
            anomaly: None,
            fps,
            start,
            prop_colours,
            objects: objects.prims,
            nobody: spec.nobody,
        };
        if spec.class != Class::Real {
            take.anomaly = Some(take.draw_anomaly(spec));
        }
        take
    }

    fn time(&self, frame: usize) -> f32 {
        self.start + (frame as f64 / self.fps) as f32
    }

    /// Bones at a frame's instant, after the anomaly.
    fn bones(&self, anomaly: Option<&Anomaly>, frame: usize) -> (Body, Pose, Skeleton) {
        let t = self.time(frame);
        let Some(a) = anomaly else {
            let pose = self.motion.pose(&self.body, t);
            let skeleton = pose.solve(&self.body);
            return (self.body.clone(), pose, skeleton);
        };
        // Proportions that are wrong do not move the person's feet and hips: poses are made for the true body.
        let body = a.body(&self.body, t);
        let mut pose = self.motion.pose(&self.body, a.body_time(t));
        a.pose(&mut pose, &self.motion, &self.body, t, frame);
        let skeleton = pose.solve(&body);
        (body, pose, skeleton)
    }

    /// What stands before the camera at `frame`, with the flesh (looks, missing and additional parts) of frame `flesh_of`, which flow needs.
    fn shot(
        &self,
        anomaly: Option<&Anomaly>,
        frame: usize,
        flesh_of: usize,
        width: usize,
        height: usize,
    ) -> Shot {
        let t = self.time(frame);
        let flesh_t = self.time(flesh_of);
        let (body, pose, skeleton) = self.bones(anomaly, frame);
        let look = anomaly.map_or_else(
            || self.look.clone(),
            |a| a.look(&self.look, flesh_t, flesh_of),
        );
        let mut b = Builder::new();
        if !self.nobody {
            b.person(&body, &look, &skeleton);
            self.prop(&mut b, &skeleton, anomaly.map_or(t, |a| a.body_time(t)));
        }
        if let Some(a) = anomaly {
            a.flesh(&mut b, &body, &look, &pose, &skeleton, flesh_t);
        }
        b.prims.extend_from_slice(&self.objects);
        let place = self.motion.path(&self.body, t);
        let (melt, melt_seed) = anomaly.map_or((0.0, 0), |a| a.melt(flesh_t));
        Shot {
            prims: b.prims,
            look,
            expression: Expression {
                mouth: pose.mouth,
                blink: pose.blink,
                gaze: pose.gaze,
                melt,
                melt_seed,
                head: body.head * body.head_scale,
            },
            view: self.camera.view(width, height, place, t),
            place: v3(
                skeleton.joints[bone::PELVIS].origin.x,
                0.0,
                skeleton.joints[bone::PELVIS].origin.z,
            ),
            opacity: anomaly.map_or(1.0, |a| a.prop_opacity(t)),
        }
    }

    fn prop(&self, b: &mut Builder, skeleton: &Skeleton, t: f32) {
        let (Some(kind), Some(place)) = (self.motion.prop, self.motion.prop_place(&self.body, t))
        else {
            return;
        };
        let joint = match place {
            PropPlace::World(at) => Joint {
                origin: at,
                axes: M3::ONE,
            },
            PropPlace::Hand(side) => {
                let hand = skeleton.joints[bone::HAND + side];
                let length = self.body.hand[side];
                Joint {
                    origin: hand.point(v3(0.0, 0.52 * length, 0.34 * length)),
                    axes: hand.axes,
                }
            }
            PropPlace::BothHands => {
                let (l, r) = (skeleton.joints[bone::HAND], skeleton.joints[bone::HAND + 1]);
                let length = self.body.hand[0];
                let middle = (l.point(v3(0.0, 0.45 * length, 0.0))
                    + r.point(v3(0.0, 0.45 * length, 0.0)))
                    * 0.5;
                let across = (l.origin - r.origin).unit();
                let front = skeleton.joints[bone::CHEST].axes.z.without(across).unit();
                Joint {
                    origin: middle,
                    axes: M3 {
                        x: across,
                        y: front.cross(across),
                        z: front,
                    },
                }
            }
        };
        b.prop(kind, joint, self.prop_colours.0, self.prop_colours.1);
    }

    /// One frame: bytes, and what they were made of.
    fn frame(&self, spec: &Spec, frame: usize) -> (Frame, Shot, Picture) {
        let (width, height) = (spec.width, spec.height);
        let (shot, raw) = self.light(
            self.anomaly.as_ref(),
            frame,
            width,
            height,
            spec.supersample,
        );
        let pixels = self
            .sensor
            .develop(&raw.linear, width, height, frame, self.time(frame));
        (pixels, shot, raw)
    }

    /// What falls on the sensor, `s` rays a pixel in each direction.
    fn light(
        &self,
        anomaly: Option<&Anomaly>,
        frame: usize,
        width: usize,
        height: usize,
        s: usize,
    ) -> (Shot, Picture) {
        let shot = self.shot(anomaly, frame, frame, width * s, height * s);
        let shown = Shown {
            scene: &self.scene,
            look: &shot.look,
            expression: shot.expression,
            prims: &shot.prims,
            place: shot.place,
            prop_opacity: shot.opacity,
        };
        let shadow = (height.max(width) * s).clamp(160, 640);
        let mut raw = picture(&shown, &shot.view, s, shadow);
        if let Some(a) = anomaly {
            truth::spoil_picture(a, &mut raw, width, height, self.time(frame));
        }
        (shot, raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::flesh::part;
    use crate::generator::operator::Operator;

    fn small(seed: u64, class: Class) -> Spec {
        Spec {
            class,
            width: 48,
            height: 48,
            frames: 6,
            fps: Some(6.0),
            supersample: 1,
            maps: true,
            ..Spec::new(seed)
        }
    }

    #[test]
    fn the_same_spec_gives_the_same_bytes() {
        let a = sample(&small(3, Class::Motion)).unwrap();
        let b = sample(&small(3, Class::Motion)).unwrap();
        assert_eq!(a.clip, b.clip);
        assert_eq!(a.flow, b.flow);
        let c = sample(&small(4, Class::Motion)).unwrap();
        assert_ne!(a.clip, c.clip);
    }

    #[test]
    fn nothing_but_the_anomaly_differs_within_a_pair() {
        for seed in 0..12 {
            for class in Class::FORGED {
                let spec = Spec {
                    nuisance: 0.0,
                    ..small(seed, class)
                };
                let forged = sample(&spec).unwrap();
                let real = sample(&spec.twin()).unwrap();
                assert_eq!(forged.scene, real.scene);
                assert_eq!(forged.clip.fps, real.clip.fps);
                let record = forged.anomaly.expect("a forged clip has an anomaly");
                assert_eq!(record.operator.class(), class);
                assert!(record.first_frame <= record.last_frame && record.last_frame < 6);
                let differs = |f: usize| forged.clip.frames[f] != real.clip.frames[f];
                assert!(
                    (0..6).any(differs),
                    "{:?} of seed {seed} changes nothing",
                    record.operator
                );
                for f in 0..record.first_frame {
                    assert!(
                        !differs(f),
                        "{:?} of seed {seed} changes frame {f} before its span",
                        record.operator
                    );
                }
            }
        }
    }

    #[test]
    fn every_operator_changes_the_picture_and_marks_where() {
        for operator in Operator::ALL {
            let mut shown = 0;
            for seed in 0..6 {
                let spec = Spec {
                    operator: Some(operator),
                    severity: Some(0.8),
                    nuisance: 0.0,
                    ..small(seed + 100, operator.class())
                };
                let forged = sample(&spec).unwrap();
                let real = sample(&spec.twin()).unwrap();
                let changed = forged
                    .clip
                    .frames
                    .iter()
                    .zip(&real.clip.frames)
                    .any(|(a, b)| a != b);
                let marked = forged.mask.iter().any(|m| m.data.iter().any(|&v| v > 0.0));
                shown += usize::from(changed && marked);
            }
            assert!(
                shown >= 2,
                "{} shows in {shown} of 6 clips",
                operator.name()
            );
        }
    }

    #[test]
    fn flow_leads_to_the_same_part() {
        let spec = Spec {
            nuisance: 1.0,
            action: Some(Action::Walk),
            framing: Some(super::super::Framing::Full),
            width: 64,
            height: 64,
            fps: Some(15.0),
            ..small(9, Class::Real)
        };
        let r = sample(&spec).unwrap();
        let (mut same, mut all) = (0, 0);
        for f in 0..5 {
            for y in 2..62 {
                for x in 2..62 {
                    let i = y * 64 + x;
                    let p = r.parts[f][i];
                    let (nx, ny) = (
                        x as f32 + r.flow[f].u.data[i],
                        y as f32 + r.flow[f].v.data[i],
                    );
                    if !part::is_person(p) || nx < 0.0 || ny < 0.0 || nx > 63.0 || ny > 63.0 {
                        continue;
                    }
                    all += 1;
                    same += usize::from(
                        r.parts[f + 1][ny.round() as usize * 64 + nx.round() as usize] == p,
                    );
                }
            }
        }
        assert!(
            all > 800 && same as f64 > 0.8 * all as f64,
            "{same} of {all}"
        );
    }

    #[test]
    fn a_clip_without_a_person_shows_the_same_place() {
        let spec = small(5, Class::Real);
        let with = sample(&spec).unwrap();
        let without = sample(&Spec {
            nobody: true,
            ..spec
        })
        .unwrap();
        assert_eq!(with.scene, without.scene);
        assert!(with.parts[0].iter().any(|p| part::is_person(*p)));
        assert!(without.parts.iter().flatten().all(|p| !part::is_person(*p)));
    }

    #[test]
    fn absurd_specs_are_refused() {
        for spec in [
            Spec {
                nobody: true,
                class: Class::Motion,
                ..Spec::new(0)
            },
            Spec {
                width: 0,
                ..Spec::new(0)
            },
            Spec {
                frames: 0,
                ..Spec::new(0)
            },
            Spec {
                severity: Some(f32::NAN),
                ..Spec::new(0)
            },
            Spec {
                supersample: 9,
                ..Spec::new(0)
            },
            Spec {
                fps: Some(-1.0),
                ..Spec::new(0)
            },
            Spec {
                operator: Some(Operator::Jitter),
                class: Class::Spatial,
                ..Spec::new(0)
            },
        ] {
            assert!(sample(&spec).is_err());
        }
    }
}
