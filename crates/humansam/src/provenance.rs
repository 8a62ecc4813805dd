//! Is there a C2PA manifest in a file? Present or absent, and nothing more: no signature is checked, so a manifest proves nothing by itself.
//!
//! Where manifests live (C2PA technical specification 2.1, appendix A): in BMFF files (mp4, mov) in a top-level `uuid` box with the extended
//! type `d8fec3d6-1b0e-483c-9297-5828877ec481`; in JPEG in APP11 segments that hold JUMBF boxes (`jumb`) labelled `c2pa`; in PNG in a chunk `caBX`.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use serde::Serialize;

use crate::error::{HumansamError, Result};

/// Whether a file carries a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Manifest {
    /// There is one. It was not verified.
    Present,
    /// There is none where one would be.
    Absent,
    /// The kind of file is none of those looked into, or its structure is broken.
    Unknown,
}

const C2PA_UUID: [u8; 16] = [
    0xd8, 0xfe, 0xc3, 0xd6, 0x1b, 0x0e, 0x48, 0x3c, 0x92, 0x97, 0x58, 0x28, 0x87, 0x7e, 0xc4, 0x81,
];
/// More parts than this at the top level are not looked at.
const MOST_PARTS: usize = 100_000;

/// Looks for a manifest.
///
/// # Errors
/// When the file cannot be read.
pub fn manifest(path: &Path) -> Result<Manifest> {
    if path.is_dir() {
        return Ok(Manifest::Unknown);
    }
    let mut file = File::open(path).map_err(HumansamError::io("read", path))?;
    look(&mut file).map_err(HumansamError::io("read", path))
}

fn look(file: &mut (impl Read + Seek)) -> std::io::Result<Manifest> {
    let mut head = [0u8; 12];
    if !fill(file, &mut head)? {
        return Ok(Manifest::Unknown);
    }
    if head.starts_with(b"\xff\xd8\xff") {
        file.seek(SeekFrom::Start(2))?;
        jpeg(file)
    } else if head.starts_with(b"\x89PNG\r\n\x1a\n") {
        file.seek(SeekFrom::Start(8))?;
        png(file)
    } else if [b"ftyp", b"moov", b"mdat", b"wide", b"free"]
        .iter()
        .any(|k| &head[4..8] == *k)
    {
        file.seek(SeekFrom::Start(0))?;
        bmff(file)
    } else {
        Ok(Manifest::Unknown)
    }
}

/// Whether the buffer could be filled.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

fn bmff(file: &mut (impl Read + Seek)) -> std::io::Result<Manifest> {
    let end = file.seek(SeekFrom::End(0))?;
    let mut at = 0u64;
    for _ in 0..MOST_PARTS {
        if at >= end {
            return Ok(Manifest::Absent);
        }
        file.seek(SeekFrom::Start(at))?;
        let mut head = [0u8; 8];
        if !fill(file, &mut head)? {
            return Ok(Manifest::Unknown);
        }
        let small = u64::from(u32::from_be_bytes([head[0], head[1], head[2], head[3]]));
        let (size, used) = match small {
            0 => (end - at, 8),
            1 => {
                let mut large = [0u8; 8];
                if !fill(file, &mut large)? {
                    return Ok(Manifest::Unknown);
                }
                (u64::from_be_bytes(large), 16)
            }
            n => (n, 8),
        };
        if size < used {
            return Ok(Manifest::Unknown);
        }
        if &head[4..8] == b"uuid" {
            let mut kind = [0u8; 16];
            if size >= used + 16 && fill(file, &mut kind)? && kind == C2PA_UUID {
                return Ok(Manifest::Present);
            }
        }
        at = match at.checked_add(size) {
            Some(next) => next,
            None => return Ok(Manifest::Unknown),
        };
    }
    Ok(Manifest::Unknown)
}

fn jpeg(file: &mut (impl Read + Seek)) -> std::io::Result<Manifest> {
    for _ in 0..MOST_PARTS {
        let mut marker = [0u8; 2];
        if !fill(file, &mut marker)? || marker[0] != 0xff {
            return Ok(Manifest::Unknown);
        }
        match marker[1] {
            // Start of scan or end of image: segments before the picture are over.
            0xda | 0xd9 => return Ok(Manifest::Absent),
            // Fill byte.
            0xff => {
                file.seek(SeekFrom::Current(-1))?;
                continue;
            }
            0x01 | 0xd0..=0xd7 => continue,
            _ => {}
        }
        let mut size = [0u8; 2];
        if !fill(file, &mut size)? {
            return Ok(Manifest::Unknown);
        }
        let size = usize::from(u16::from_be_bytes(size));
        if size < 2 {
            return Ok(Manifest::Unknown);
        }
        let mut body = vec![0u8; size - 2];
        if !fill(file, &mut body)? {
            return Ok(Manifest::Unknown);
        }
        // APP11: "JP", instance, sequence, then the box with its description box labelled c2pa.
        if marker[1] == 0xeb
            && body.len() > 16
            && body.starts_with(b"JP")
            && &body[12..16] == b"jumb"
            && body.windows(5).any(|w| w == b"c2pa\0")
        {
            return Ok(Manifest::Present);
        }
    }
    Ok(Manifest::Unknown)
}

fn png(file: &mut (impl Read + Seek)) -> std::io::Result<Manifest> {
    for _ in 0..MOST_PARTS {
        let mut head = [0u8; 8];
        if !fill(file, &mut head)? {
            return Ok(Manifest::Unknown);
        }
        match &head[4..8] {
            b"caBX" => return Ok(Manifest::Present),
            b"IEND" => return Ok(Manifest::Absent),
            _ => {}
        }
        let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        file.seek(SeekFrom::Current(i64::from(size) + 4))?;
    }
    Ok(Manifest::Unknown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;

    fn part(kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
        [&(body.len() as u32 + 8).to_be_bytes()[..], kind, body].concat()
    }

    fn seen(bytes: &[u8]) -> Manifest {
        look(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn manifests_are_found_where_the_specification_puts_them() {
        let plain = [part(b"ftyp", b"isom0000"), part(b"mdat", &[7; 40])].concat();
        assert_eq!(seen(&plain), Manifest::Absent);
        let other = [plain.clone(), part(b"uuid", &[1; 30])].concat();
        assert_eq!(seen(&other), Manifest::Absent);
        let signed = [
            plain.clone(),
            part(b"uuid", &[&C2PA_UUID[..], b"manifest"].concat()),
        ]
        .concat();
        assert_eq!(seen(&signed), Manifest::Present);
        assert_eq!(seen(&plain[..plain.len() - 45]), Manifest::Unknown);

        let app11 = [
            b"JP\0\x01\0\0\0\x01".as_slice(),
            &[0, 0, 0, 60],
            b"jumb",
            &[0, 0, 0, 40],
            b"jumdxxxxxxxxxxxxxxxx\x03c2pa\0",
        ]
        .concat();
        let segment = |m: u8, body: &[u8]| {
            [&[0xff, m][..], &(body.len() as u16 + 2).to_be_bytes(), body].concat()
        };
        let jpeg = |middle: Vec<u8>| {
            [
                b"\xff\xd8".to_vec(),
                segment(0xe0, b"JFIF\0"),
                middle,
                segment(0xda, b"abc"),
            ]
            .concat()
        };
        assert_eq!(seen(&jpeg(vec![])), Manifest::Absent);
        assert_eq!(seen(&jpeg(segment(0xeb, &app11))), Manifest::Present);

        let chunk = |kind: &[u8; 4], body: &[u8]| {
            [&(body.len() as u32).to_be_bytes()[..], kind, body, &[0; 4]].concat()
        };
        let png = |middle: Vec<u8>| {
            [
                b"\x89PNG\r\n\x1a\n".to_vec(),
                chunk(b"IHDR", &[0; 13]),
                middle,
                chunk(b"IEND", b""),
            ]
            .concat()
        };
        assert_eq!(seen(&png(vec![])), Manifest::Absent);
        assert_eq!(seen(&png(chunk(b"caBX", b"jumb"))), Manifest::Present);
        assert_eq!(seen(b"YUV4MPEG2 W2 H2\n"), Manifest::Unknown);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_or_hang(bytes in proptest::collection::vec(any::<u8>(), 0..400), kind in 0usize..3) {
            let head: &[u8] = [b"\xff\xd8\xff".as_slice(), b"\x89PNG\r\n\x1a\n", b"\0\0\0\x10ftypisom\0\0\0\0"][kind];
            let _ = seen(&bytes);
            let _ = seen(&[head, &bytes].concat());
        }
    }
}
