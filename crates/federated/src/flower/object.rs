//! Content-addressed objects: a message is a tree of them, and only those that the other side has not got are sent.
//!
//! ```text
//! object = "<class> <hashes of children, comma separated> <length of the body>" 0x00 body          id = hex SHA-256(object)
//! Message ─ RecordDict ─┬─ ArrayRecord ─ Array ─ ArrayChunk (at most 5 MiB each)
//!                       ├─ MetricRecord
//!                       └─ ConfigRecord
//! ```

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::limits::{self, PER_BYTE, Room};
use super::proto::{Envelope, Error, Item, Metadata, NoContent, ObjectTree, RecordValue, Values};
use super::record::{Array, Content, Record};
use crate::FederatedError;

/// Largest chunk of an array, as Flower cuts them.
const CHUNK: usize = 5_242_880;
/// Deepest tree that is followed; a message's has depth 5.
const DEPTH: usize = 8;
/// Most objects that a tree may name.
const MOST_OBJECTS: usize = 100_000;

/// Code of an answer that cannot be read, beside Flower's own.
pub(super) const MALFORMED: i64 = 1000;

/// A message with what it carries.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where from, where to.
    pub metadata: Metadata,
    /// Records, or an error.
    pub body: Result<Content, Error>,
}

/// A message as objects.
#[derive(Clone, Debug)]
pub struct Deflated {
    /// The message as it is announced: its number filled in, its content left out.
    pub envelope: Envelope,
    /// Its objects by hash.
    pub tree: ObjectTree,
    /// The objects.
    pub objects: BTreeMap<String, Vec<u8>>,
}

fn wrong(problem: impl Into<String>) -> FederatedError {
    FederatedError::format(
        "object of a message",
        problem,
        "the other side must be Flower's or this version's",
    )
}

/// Builds objects and collects them.
#[derive(Default)]
struct Builder(BTreeMap<String, Vec<u8>>);

fn hash(object: &[u8]) -> String {
    Sha256::digest(object)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

impl Builder {
    /// An object with its children, each once, in order of first use.
    fn object(&mut self, class: &str, children: Vec<ObjectTree>, body: &[u8]) -> ObjectTree {
        let mut seen = BTreeSet::new();
        let children: Vec<ObjectTree> = children
            .into_iter()
            .filter(|c| seen.insert(c.object_id.clone()))
            .collect();
        let ids: Vec<&str> = children.iter().map(|c| c.object_id.as_str()).collect();
        let mut object = format!("{class} {} {}", ids.join(","), body.len()).into_bytes();
        object.push(0);
        object.extend(body);
        let id = hash(&object);
        self.0.insert(id.clone(), object);
        ObjectTree {
            object_id: id,
            children,
        }
    }

    fn array(&mut self, a: &Array) -> ObjectTree {
        let mut indices = Vec::new();
        let mut unique: Vec<String> = Vec::new();
        let mut children = Vec::new();
        let mut chunks: Vec<&[u8]> = a.data.chunks(CHUNK).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for chunk in chunks {
            let child = self.object("ArrayChunk", Vec::new(), chunk);
            let at = unique.iter().position(|u| *u == child.object_id);
            indices.push(at.unwrap_or(unique.len()));
            if at.is_none() {
                unique.push(child.object_id.clone());
                children.push(child);
            }
        }
        let body = serde_json::json!({
            "dtype": a.dtype, "shape": a.shape, "stype": a.stype, "arraychunk_ids": indices
        });
        self.object("Array", children, body.to_string().as_bytes())
    }

    fn record(&mut self, record: &Record) -> ObjectTree {
        let values = |v: &[(String, super::proto::Scalar)]| {
            Values {
                items: v
                    .iter()
                    .map(|(k, s)| Item {
                        key: k.clone(),
                        value: Some(RecordValue {
                            value: Some(s.clone()),
                        }),
                    })
                    .collect(),
            }
            .encode_to_vec()
        };
        match record {
            Record::Arrays(arrays) => {
                let (refs, children) = self.named(arrays, |b, a| b.array(a));
                self.object("ArrayRecord", children, refs.as_bytes())
            }
            Record::Metrics(v) => self.object("MetricRecord", Vec::new(), &values(v)),
            Record::Config(v) => self.object("ConfigRecord", Vec::new(), &values(v)),
        }
    }

    /// Children by name, and the JSON object of their hashes in the order given.
    fn named<T>(
        &mut self,
        all: &[(String, T)],
        make: impl Fn(&mut Self, &T) -> ObjectTree,
    ) -> (String, Vec<ObjectTree>) {
        let mut refs = Vec::new();
        let mut children = Vec::new();
        for (name, x) in all {
            let child = make(self, x);
            refs.push(format!(
                "{}: \"{}\"",
                serde_json::Value::String(name.clone()),
                child.object_id
            ));
            children.push(child);
        }
        (format!("{{{}}}", refs.join(", ")), children)
    }
}

impl Message {
    /// The message as objects, with its number.
    ///
    /// # Errors
    /// [`FederatedError::TooLarge`] for content above `limit` bytes, before anything of it is copied.
    pub fn deflate(&self, limit: u64) -> Result<Deflated, FederatedError> {
        if let Ok(content) = &self.body {
            limits::check(
                &format!("message `{}`", self.metadata.message_type),
                content.size(),
                limit,
                "train less of the model: method.kind = \"lora\", a lower method.rank, fewer method.targets, or a compressing stage",
            )?;
        }
        Ok(self.objects())
    }

    fn objects(&self) -> Deflated {
        let mut b = Builder::default();
        let children = match &self.body {
            Ok(content) => {
                let (refs, children) = b.named(&content.0, |b, r| b.record(r));
                vec![b.object("RecordDict", children, refs.as_bytes())]
            }
            Err(_) => Vec::new(),
        };
        let bare = Envelope {
            metadata: Some(Metadata {
                message_id: String::new(),
                ..self.metadata.clone()
            }),
            content: None,
            error: self.body.as_ref().err().cloned(),
        };
        let tree = b.object("Message", children, &bare.encode_to_vec());
        let envelope = Envelope {
            metadata: Some(Metadata {
                message_id: tree.object_id.clone(),
                ..self.metadata.clone()
            }),
            content: self.body.is_ok().then_some(NoContent {}),
            error: bare.error,
        };
        Deflated {
            envelope,
            tree,
            objects: b.0,
        }
    }

    /// The message with number `id` from its objects, every one checked against its hash. What it unfolds to has at most `limit` bytes: an object may be
    /// named by others many times.
    ///
    /// # Errors
    /// [`FederatedError::Format`] for missing or malformed objects, [`FederatedError::TooLarge`] before more than `limit` bytes are made of them.
    pub fn inflate(
        id: &str,
        objects: &BTreeMap<String, Vec<u8>>,
        limit: u64,
    ) -> Result<Self, FederatedError> {
        if let Some((id, _)) = objects.iter().find(|(id, o)| hash(o) != **id) {
            return Err(wrong(format!("{id} has another hash")));
        }
        let mut room = Room::new(limit);
        let (children, body) = part(id, "Message", objects)?;
        let envelope = Envelope::decode(body).map_err(|e| wrong(e.to_string()))?;
        let mut metadata = envelope
            .metadata
            .ok_or_else(|| wrong("a message without metadata"))?;
        metadata.message_id = id.to_owned();
        if let Some(error) = envelope.error {
            return Ok(Self {
                metadata,
                body: Err(error),
            });
        }
        let [content] = children.as_slice() else {
            return Err(wrong("a message with neither error nor one content"));
        };
        let mut out = Vec::new();
        for (name, id) in refs(content, "RecordDict", objects, &mut room)? {
            out.push((name, record(&id, objects, &mut room)?));
        }
        Ok(Self {
            metadata,
            body: Ok(Content(out)),
        })
    }
}

/// Children and body of an object of one of these classes.
fn part<'o>(
    id: &str,
    class: &str,
    objects: &'o BTreeMap<String, Vec<u8>>,
) -> Result<(Vec<String>, &'o [u8]), FederatedError> {
    let (found, children, body) = split(id, objects)?;
    if found != class {
        return Err(wrong(format!("expected a {class}, found a {found}")));
    }
    Ok((children, body))
}

/// Class, children and body of an object.
type Parts<'o> = (&'o str, Vec<String>, &'o [u8]);

fn split<'o>(
    id: &str,
    objects: &'o BTreeMap<String, Vec<u8>>,
) -> Result<Parts<'o>, FederatedError> {
    let object = objects
        .get(id)
        .ok_or_else(|| wrong(format!("{id} is missing")))?;
    let end = object
        .iter()
        .position(|b| *b == 0)
        .ok_or_else(|| wrong("an object without a head"))?;
    let head = std::str::from_utf8(&object[..end]).map_err(|_| wrong("a head that is not text"))?;
    let mut words = head.split(' ');
    let (Some(class), Some(children), Some(size), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(wrong("a head that is not three words"));
    };
    let body = &object[end + 1..];
    if size.parse() != Ok(body.len()) {
        return Err(wrong(format!(
            "a body of {} bytes that says it has {size}",
            body.len()
        )));
    }
    let children: Vec<String> = children
        .split(',')
        .filter(|c| !c.is_empty())
        .map(|c| match c.len() {
            64 => Ok(c.to_owned()),
            n => Err(wrong(format!("a child's hash of {n} digits, expected 64"))),
        })
        .collect::<Result<_, _>>()?;
    Ok((class, children, body))
}

/// Names and hashes in the body of a `RecordDict` or `ArrayRecord`, in the order of the text.
fn refs(
    id: &str,
    class: &str,
    objects: &BTreeMap<String, Vec<u8>>,
    room: &mut Room,
) -> Result<Vec<(String, String)>, FederatedError> {
    room.take(objects.get(id).map_or(0, Vec::len) as u64)?;
    let (children, body) = part(id, class, objects)?;
    let children: BTreeSet<String> = children.into_iter().collect();
    let map: BTreeMap<String, String> =
        serde_json::from_slice(body).map_err(|e| wrong(e.to_string()))?;
    if let Some(stranger) = map.values().find(|h| !children.contains(h.as_str())) {
        return Err(wrong(format!("{stranger} is named, but no child")));
    }
    Ok(map.into_iter().collect())
}

fn record(
    id: &str,
    objects: &BTreeMap<String, Vec<u8>>,
    room: &mut Room,
) -> Result<Record, FederatedError> {
    let (class, _, body) = split(id, objects)?;
    let values = |room: &mut Room| -> Result<Vec<_>, FederatedError> {
        room.take(PER_BYTE * body.len() as u64)?;
        let v = Values::decode(body).map_err(|e| wrong(e.to_string()))?;
        v.items
            .into_iter()
            .map(|i| {
                let value = i.value.and_then(|v| v.value);
                Ok((
                    i.key,
                    value.ok_or_else(|| wrong("an entry without a value"))?,
                ))
            })
            .collect()
    };
    match class {
        "MetricRecord" => Ok(Record::Metrics(values(room)?)),
        "ConfigRecord" => Ok(Record::Config(values(room)?)),
        "ArrayRecord" => Ok(Record::Arrays(
            refs(id, class, objects, room)?
                .into_iter()
                .map(|(name, id)| Ok((name, array(&id, objects, room)?)))
                .collect::<Result<_, FederatedError>>()?,
        )),
        other => Err(wrong(format!("expected a record, found a {other}"))),
    }
}

#[derive(Deserialize)]
struct ArrayBody {
    dtype: String,
    shape: Vec<i64>,
    stype: String,
    arraychunk_ids: Vec<usize>,
}

fn array(
    id: &str,
    objects: &BTreeMap<String, Vec<u8>>,
    room: &mut Room,
) -> Result<Array, FederatedError> {
    // Its own object too: it may be named by many records, and is read each time.
    room.take(objects.get(id).map_or(0, Vec::len) as u64)?;
    let (children, body) = part(id, "Array", objects)?;
    let body: ArrayBody = serde_json::from_slice(body).map_err(|e| wrong(e.to_string()))?;
    // Each chunk is looked at once, however often it is named, and all of them are counted before the first is copied.
    let chunks = children
        .iter()
        .map(|c| Ok(part(c, "ArrayChunk", objects)?.1))
        .collect::<Result<Vec<&[u8]>, FederatedError>>()?;
    let mut size = 0u64;
    let mut parts = Vec::with_capacity(body.arraychunk_ids.len());
    for i in body.arraychunk_ids {
        let chunk = *chunks
            .get(i)
            .ok_or_else(|| wrong(format!("chunk {i} of {}", chunks.len())))?;
        size = size.saturating_add(chunk.len() as u64);
        parts.push(chunk);
    }
    room.take(size.saturating_add((body.shape.len() * 8 + std::mem::size_of::<Array>()) as u64))?;
    let data = parts.concat();
    Ok(Array {
        dtype: body.dtype,
        shape: body.shape,
        stype: body.stype,
        data,
    })
}

/// A malformed message as its sender's error; `None` when it does not even say what it answers.
pub(super) fn malformed(
    envelope: &Envelope,
    id: &str,
    problem: &FederatedError,
) -> Option<Message> {
    let mut metadata = envelope.metadata.clone()?;
    metadata.message_id = id.to_owned();
    Some(Message {
        metadata,
        body: Err(Error {
            code: MALFORMED,
            reason: problem.to_string(),
        }),
    })
}

/// All hashes of a tree, children first, each once.
///
/// # Errors
/// [`FederatedError::Format`] for a tree that is too deep or too large.
pub fn hashes(tree: &ObjectTree) -> Result<Vec<String>, FederatedError> {
    fn walk(
        t: &ObjectTree,
        depth: usize,
        seen: &mut BTreeSet<String>,
        out: &mut Vec<String>,
    ) -> Result<(), FederatedError> {
        if depth > DEPTH || out.len() > MOST_OBJECTS {
            return Err(wrong(format!(
                "a tree deeper than {DEPTH} or of more than {MOST_OBJECTS} objects"
            )));
        }
        for c in &t.children {
            walk(c, depth + 1, seen, out)?;
        }
        if seen.insert(t.object_id.clone()) {
            out.push(t.object_id.clone());
        }
        Ok(())
    }
    let mut out = Vec::new();
    walk(tree, 0, &mut BTreeSet::new(), &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::super::limits::MESSAGE;
    use super::super::proto::Scalar;
    use super::*;
    use proptest::prelude::*;

    fn message() -> Message {
        Message {
            metadata: Metadata {
                run_id: 7,
                dst_node_id: 3,
                ttl: 60.0,
                message_type: "train".into(),
                ..Metadata::default()
            },
            body: Ok(Content(vec![
                (
                    "arrays".into(),
                    Record::Arrays(vec![
                        ("w".into(), Array::from_f32(&[3], &[1.0, 2.0, 3.0])),
                        ("zeros".into(), Array::from_bytes("own", &vec![0; 12 << 20])),
                    ]),
                ),
                (
                    "config".into(),
                    Record::Config(vec![("kind".into(), Scalar::Text("x \"y\"".into()))]),
                ),
                (
                    "metrics".into(),
                    Record::Metrics(vec![("num-examples".into(), Scalar::Sint(5))]),
                ),
            ])),
        }
    }

    #[test]
    fn messages_come_back_from_their_objects() {
        let m = message();
        let d = m.deflate(MESSAGE).unwrap();
        // 12 MiB of zeros: two equal chunks of 5 MiB, one of 2, each sent once.
        let all = hashes(&d.tree).unwrap();
        assert_eq!(all.len(), d.objects.len());
        assert_eq!(all.len(), 1 + 1 + 3 + 2 + 3);
        assert_eq!(all.last(), Some(&d.tree.object_id));
        let back = Message::inflate(&d.tree.object_id, &d.objects, MESSAGE).unwrap();
        let mut want = m.clone();
        want.metadata.message_id = d.tree.object_id.clone();
        assert_eq!(back, want);
        let failed = Message {
            body: Err(Error {
                code: 2,
                reason: "no".into(),
            }),
            ..m
        };
        let d = failed.deflate(MESSAGE).unwrap();
        assert!(d.envelope.content.is_none() && d.objects.len() == 1);
        let back = Message::inflate(&d.tree.object_id, &d.objects, MESSAGE).unwrap();
        assert_eq!(back.body, failed.body);
    }

    #[test]
    fn a_malformed_answer_is_its_senders_error_and_says_what_it_answers() {
        let problem = FederatedError::format("object", "it is cut off", "ask again");
        let mut envelope = Envelope::default();
        assert!(malformed(&envelope, "x", &problem).is_none());
        envelope.metadata = Some(Metadata {
            reply_to_message_id: "question".into(),
            ..Metadata::default()
        });
        let m = malformed(&envelope, "x", &problem).unwrap();
        assert_eq!(m.metadata.reply_to_message_id, "question");
        let error = m.body.unwrap_err();
        assert!(error.code == MALFORMED && error.reason.contains("cut off"));
    }

    #[test]
    fn changed_and_missing_objects_are_refused() {
        let d = message().deflate(MESSAGE).unwrap();
        for id in d.objects.keys() {
            let mut fewer = d.objects.clone();
            fewer.remove(id);
            assert!(Message::inflate(&d.tree.object_id, &fewer, MESSAGE).is_err());
            let mut changed = d.objects.clone();
            *changed.get_mut(id).unwrap().last_mut().unwrap() ^= 1;
            assert!(Message::inflate(&d.tree.object_id, &changed, MESSAGE).is_err());
        }
        let mut deep = d.tree.clone();
        for _ in 0..20 {
            deep = ObjectTree {
                object_id: "x".into(),
                children: vec![deep],
            };
        }
        assert!(hashes(&deep).is_err());
    }

    #[test]
    fn what_is_too_large_to_send_is_refused_before_its_objects_are_made() {
        let m = message();
        let size = m.body.as_ref().unwrap().size();
        // The arrays with their heads, and little more.
        assert!(size > 12 << 20 && size < (12 << 20) + 1000, "{size}");
        assert!(m.deflate(size).is_ok());
        let e = m.deflate(size - 1).unwrap_err();
        let said = e.to_string();
        assert!(
            matches!(e, FederatedError::TooLarge { bytes, limit, .. } if bytes == size && limit == size - 1)
        );
        assert!(
            said.contains("message `train`") && said.contains("method.rank"),
            "{said}"
        );
    }

    /// An array that names its only chunk, of 1 KiB, `times` times, as objects; and under two names.
    fn repeated(times: usize) -> (String, BTreeMap<String, Vec<u8>>) {
        let mut b = Builder::default();
        let chunk = b.object("ArrayChunk", Vec::new(), &[7; 1024]);
        let body = serde_json::json!({
            "dtype": "uint8", "shape": [1024 * times], "stype": "own", "arraychunk_ids": vec![0; times]
        });
        let array = b.object("Array", vec![chunk], body.to_string().as_bytes());
        let refs = format!("{{\"a\": \"{0}\", \"b\": \"{0}\"}}", array.object_id);
        let record = b.object("ArrayRecord", vec![array], refs.as_bytes());
        let refs = format!("{{\"arrays\": \"{}\"}}", record.object_id);
        let content = b.object("RecordDict", vec![record], refs.as_bytes());
        let envelope = Envelope {
            metadata: Some(Metadata::default()),
            content: None,
            error: None,
        };
        let tree = b.object("Message", vec![content], &envelope.encode_to_vec());
        (tree.object_id, b.0)
    }

    #[test]
    fn a_small_message_that_unfolds_to_gibibytes_is_refused_before_it_does() {
        // 4 MiB of objects: two million times 1 KiB under each of two names, 4 GiB.
        let (id, objects) = repeated(2 << 20);
        assert!(objects.values().map(Vec::len).sum::<usize>() < 5 << 20);
        let e = Message::inflate(&id, &objects, MESSAGE).unwrap_err();
        let FederatedError::TooLarge { bytes, limit, .. } = e else {
            panic!("{e}")
        };
        // Refused by the sum of the first array alone.
        assert!(
            limit == MESSAGE && bytes > MESSAGE && bytes < MESSAGE + (8 << 20),
            "{bytes}"
        );
        let (id, objects) = repeated(64);
        let m = Message::inflate(&id, &objects, 1 << 20).unwrap();
        assert_eq!(m.body.unwrap().bytes("arrays", "own").unwrap(), [7; 65536]);
        // One array fits, the second does not.
        assert!(Message::inflate(&id, &objects, 100 << 10).is_err());
    }

    #[test]
    fn a_record_of_many_small_entries_takes_room_for_what_they_become() {
        let mut b = Builder::default();
        // A hundred thousand empty entries of two bytes.
        let body: Vec<u8> = [10, 0].repeat(100_000);
        let id = b.object("MetricRecord", Vec::new(), &body).object_id;
        let read = |limit| record(&id, &b.0, &mut Room::new(limit));
        assert!(matches!(
            read(1 << 20),
            Err(FederatedError::TooLarge { .. })
        ));
        // With room enough it is found to be malformed.
        assert!(matches!(read(MESSAGE), Err(FederatedError::Format { .. })));
    }

    proptest! {
        #[test]
        fn noise_never_panics(class in 0usize..6, children in prop::collection::vec(any::<u8>(), 0..3), body in prop::collection::vec(any::<u8>(), 0..80)) {
            let name = ["Message", "RecordDict", "ArrayRecord", "Array", "ArrayChunk", "ConfigRecord"][class];
            let mut objects = BTreeMap::new();
            let mut leaf = b"ArrayChunk  1\0x".to_vec();
            let leaf_id = hash(&leaf);
            objects.insert(leaf_id.clone(), std::mem::take(&mut leaf));
            let ids: Vec<String> = children.iter().map(|_| leaf_id.clone()).collect();
            let mut object = format!("{name} {} {}", ids.join(","), body.len()).into_bytes();
            object.push(0);
            object.extend(&body);
            let id = hash(&object);
            objects.insert(id.clone(), object);
            let _ = Message::inflate(&id, &objects, 1 << 20);
            let _ = record(&id, &objects, &mut Room::new(1 << 20));
            let _ = array(&id, &objects, &mut Room::new(1 << 20));
            let _ = refs(&id, "RecordDict", &objects, &mut Room::new(1 << 20));
        }
    }
}
