//! Everything that `ffmpeg` reads, through `ffprobe` and `ffmpeg` as processes.
//!
//! Files are named with the `file:` protocol and no other protocol is allowed, so that neither a name that begins with a dash nor a playlist inside
//! the file reaches for anything else. Rotation flags are applied and variable frame rates made constant by `ffmpeg` itself.

use std::ffi::OsString;
use std::io::Read;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{
    Container, Decoded, Info, Keeper, Pace, Wanted, check_bytes, choose, decoded, fitted, thinning,
};
use crate::clip::Frame;
use crate::error::{HumansamError, Result};

/// More frames than this in the time asked for, and single frames are looked for by seeking.
const MOST_DECODED: f64 = 1800.0;
/// Rate of the time stamps over the mean rate up to which frames are taken to be missing; above, pictures of half the lines are counted twice.
const MOST_GAPS: f64 = 1.7;
const LONGEST_COMPLAINT: u64 = 4096;
const MOST_PIXELS: u64 = 1 << 26;
/// Memory that a program gets beside [`PICTURES`]: damaged time stamps have `ffmpeg` fill gaps of years with copies of frames, all in memory.
const MEMORY: u64 = 1 << 30;
/// Pictures of four bytes a pixel that a decoder may hold: those it refers to and those its threads and filters work on.
const PICTURES: u64 = 40;
/// How often the watch looks.
const GLANCE: Duration = Duration::from_millis(50);

/// Whether `ffmpeg` and `ffprobe` can be started.
pub fn available() -> bool {
    ["ffmpeg", "ffprobe"].iter().all(|p| {
        Command::new(p)
            .arg("-version")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    })
}

fn file_argument(path: &Path) -> OsString {
    let mut name = OsString::from("file:");
    name.push(path);
    name
}

/// What a program may take.
#[derive(Clone, Copy)]
struct Limits {
    time: Duration,
    /// Bytes of memory; enforced on Linux.
    memory: u64,
}

/// Why the watch ended a program.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Excess {
    Time,
    Memory,
}

/// A started program with a watch on its time and memory.
struct Running {
    program: &'static str,
    child: Arc<Mutex<Child>>,
    stdout: ChildStdout,
    complaints: std::thread::JoinHandle<String>,
    watch: std::thread::JoinHandle<Option<Excess>>,
    done: std::sync::mpsc::Sender<()>,
}

/// How a program ended.
struct Ended {
    /// By itself, with success.
    well: bool,
    excess: Option<Excess>,
    complaints: String,
}

/// Bytes of memory that a process holds; nothing where the system does not say.
fn resident(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

fn start(
    program: &'static str,
    arguments: &[OsString],
    path: &Path,
    limits: Limits,
) -> Result<Running> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => HumansamError::MissingProgram {
                program,
                what: format!("reading {}", path.display()),
            },
            _ => HumansamError::Program {
                program,
                path: path.into(),
                message: format!("cannot be started: {e}"),
            },
        });
    let mut child = child?;
    let no_pipe = || HumansamError::Program {
        program,
        path: path.into(),
        message: "gave no pipe".into(),
    };
    let stdout = child.stdout.take().ok_or_else(no_pipe)?;
    let mut stderr = child.stderr.take().ok_or_else(no_pipe)?;
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What is beyond the limit is read and dropped, so that the program never waits for us.
        let _ = (&mut stderr).take(LONGEST_COMPLAINT).read_to_end(&mut text);
        let _ = std::io::copy(&mut stderr, &mut std::io::sink());
        String::from_utf8_lossy(&text).trim().to_owned()
    });
    let process = child.id();
    let child = Arc::new(Mutex::new(child));
    let (done, finished) = channel::<()>();
    let watched = Arc::clone(&child);
    let watch = std::thread::spawn(move || {
        let began = Instant::now();
        loop {
            let left = limits.time.saturating_sub(began.elapsed());
            if finished.recv_timeout(left.min(GLANCE)) != Err(RecvTimeoutError::Timeout) {
                return None;
            }
            let excess = if began.elapsed() >= limits.time {
                Excess::Time
            } else if resident(process).is_some_and(|bytes| bytes > limits.memory) {
                Excess::Memory
            } else {
                continue;
            };
            if let Ok(mut child) = watched.lock() {
                let _ = child.kill();
            }
            return Some(excess);
        }
    });
    Ok(Running {
        program,
        child,
        stdout,
        complaints,
        watch,
        done,
    })
}

impl Running {
    /// Ends the program, also before it is through.
    fn end(self) -> Ended {
        drop(self.stdout);
        let mut early = false;
        let well = loop {
            // The lock is held only for a moment, for the watch needs it too.
            let status = self.child.lock().map_or(Ok(None), |mut c| c.try_wait());
            match status {
                Ok(Some(s)) => break s.success(),
                Ok(None) if early => std::thread::sleep(Duration::from_millis(2)),
                Ok(None) => {
                    early = true;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(_) => break false,
            }
        };
        let _ = self.done.send(());
        Ended {
            well,
            excess: self.watch.join().unwrap_or_default(),
            complaints: self.complaints.join().unwrap_or_default(),
        }
    }
}

fn failed(program: &'static str, path: &Path, ended: &Ended) -> HumansamError {
    HumansamError::Program {
        program,
        path: path.into(),
        message: match ended.excess {
            Some(Excess::Time) => "did not finish within the time that a file is given; it is damaged, or this machine is very busy".into(),
            Some(Excess::Memory) => "took more memory than a file of its size needs; its time stamps are damaged: write it anew (ffmpeg -i FILE NEW.mp4) or cut it".into(),
            None if ended.complaints.is_empty() => "ended without saying why; is it a video?".into(),
            None => last_line(&ended.complaints),
        },
    }
}

fn last_line(text: &str) -> String {
    text.lines()
        .rev()
        .find(|l| !l.trim().is_empty())
        .unwrap_or("")
        .trim()
        .to_owned()
}

fn words(list: &[&str]) -> Vec<OsString> {
    list.iter().map(OsString::from).collect()
}

pub(super) fn probe(path: &Path, timeout: Duration) -> Result<Info> {
    let mut arguments = words(&[
        "-v",
        "error",
        "-protocol_whitelist",
        "file,crypto,data",
        "-max_pixels",
        &MOST_PIXELS.to_string(),
        "-select_streams",
        "V:0",
        "-show_entries",
        "stream=codec_name,width,height,avg_frame_rate,r_frame_rate,nb_frames,duration:stream_tags=rotate:stream_side_data=rotation:format=duration",
        "-print_format",
        "json",
    ]);
    arguments.push("-i".into());
    arguments.push(file_argument(path));
    let limits = Limits {
        time: timeout,
        memory: MEMORY,
    };
    let mut running = start("ffprobe", &arguments, path, limits)?;
    let mut text = Vec::new();
    let read = (&mut running.stdout).take(1 << 20).read_to_end(&mut text);
    let program = running.program;
    let ended = running.end();
    if !ended.well || read.is_err() {
        return Err(failed(program, path, &ended));
    }
    let json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| HumansamError::Program {
            program,
            path: path.into(),
            message: format!("its answer is not JSON: {e}"),
        })?;
    describe(path, &json)
}

/// What `ffprobe` says, in our words.
fn describe(path: &Path, json: &serde_json::Value) -> Result<Info> {
    let malformed = |message: String| HumansamError::Malformed {
        path: path.into(),
        message,
    };
    let stream = json
        .get("streams")
        .and_then(|s| s.get(0))
        .ok_or_else(|| malformed("there is no video stream in it (sound only?)".into()))?;
    let side = |k: &str| {
        stream
            .get(k)
            .and_then(serde_json::Value::as_u64)
            .filter(|&n| n > 0 && n <= 1 << 20)
    };
    let (Some(mut width), Some(mut height)) = (side("width"), side("height")) else {
        return Err(malformed(
            "the video stream has no size; the file is cut off before its description".into(),
        ));
    };
    let text = |v: &serde_json::Value| v.as_str().map(str::to_owned);
    let number = |v: Option<&serde_json::Value>| {
        v.and_then(text)
            .and_then(|s| s.parse::<f64>().ok())
            .filter(|x| x.is_finite() && *x > 0.0)
    };
    let ratio = |k: &str| {
        let s = stream.get(k).and_then(text)?;
        let (a, b) = s.split_once('/')?;
        let r = a.parse::<f64>().ok()? / b.parse::<f64>().ok()?;
        (r.is_finite() && r > 0.0 && r <= 1000.0).then_some(r)
    };
    let turned = stream
        .get("side_data_list")
        .and_then(|l| l.as_array())
        .and_then(|l| {
            l.iter()
                .find_map(|d| d.get("rotation").and_then(serde_json::Value::as_f64))
        })
        .or_else(|| {
            stream
                .get("tags")
                .and_then(|t| t.get("rotate"))
                .and_then(text)
                .and_then(|s| s.parse().ok())
        })
        .unwrap_or(0.0);
    if (turned.rem_euclid(180.0) - 90.0).abs() < 45.0 {
        std::mem::swap(&mut width, &mut height);
    }
    let seconds = number(stream.get("duration"))
        .or_else(|| number(json.get("format").and_then(|f| f.get("duration"))));
    let frames = stream
        .get("nb_frames")
        .and_then(text)
        .and_then(|s| s.parse::<u64>().ok())
        .filter(|&n| n > 0);
    let mean = ratio("avg_frame_rate");
    // Where frames are missing, the rate of the time stamps that are there is above the mean: at that rate each frame keeps its place
    // in time, and a missing one is a repeat, which is mended (`crate::repeats`).
    let stamped =
        mean.and_then(|m| ratio("r_frame_rate").filter(|r| *r > m && *r <= MOST_GAPS * m));
    let fps = stamped
        .or(mean)
        .or_else(|| match (frames, seconds) {
            (Some(n), Some(s)) => Some((n as f64 / s).clamp(0.1, 1000.0)),
            _ => None,
        })
        .or_else(|| ratio("r_frame_rate"))
        .unwrap_or(25.0);
    Ok(Info {
        container: Container::Ffmpeg,
        width: width as usize,
        height: height as usize,
        fps,
        seconds,
        frames,
        bytes: std::fs::metadata(path)
            .map_err(HumansamError::io("read", path))?
            .len(),
        codec: stream.get("codec_name").and_then(text),
    })
}

/// Runs `ffmpeg` from `start` on; `each` gets frames of `size` at `fps` and says whether to go on.
#[allow(clippy::too_many_arguments)]
fn stream(
    path: &Path,
    info: &Info,
    from: f64,
    seconds: Option<f64>,
    fps: Option<f64>,
    most: Option<usize>,
    size: (usize, usize),
    timeout: Duration,
    mut each: impl FnMut(Frame) -> bool,
) -> Result<Option<String>> {
    let mut arguments = words(&[
        "-v",
        "error",
        "-nostdin",
        "-protocol_whitelist",
        "file,crypto,data",
        "-max_pixels",
        &MOST_PIXELS.to_string(),
        "-threads",
        "2",
    ]);
    if from > 0.0 {
        arguments.extend(words(&["-ss", &format!("{from:.6}")]));
    }
    if let Some(s) = seconds {
        arguments.extend(words(&["-t", &format!("{s:.6}")]));
    }
    arguments.push("-i".into());
    arguments.push(file_argument(path));
    let rate = fps.map_or_else(String::new, |f| format!("fps={f:.6},"));
    let filter = format!("{rate}scale={}:{}:flags=area", size.0, size.1);
    arguments.extend(words(&[
        "-map", "0:V:0", "-an", "-sn", "-dn", "-vf", &filter,
    ]));
    if let Some(n) = most {
        arguments.extend(words(&["-frames:v", &n.to_string()]));
    }
    arguments.extend(words(&["-pix_fmt", "rgb24", "-f", "rawvideo", "pipe:1"]));
    let limits = Limits {
        time: timeout,
        memory: MEMORY + PICTURES * 4 * (info.width * info.height) as u64,
    };
    let mut running = start("ffmpeg", &arguments, path, limits)?;
    let bytes = 3 * size.0 * size.1;
    let mut frames = 0;
    let mut satisfied = false;
    loop {
        let mut rgb = Vec::new();
        let got = (&mut running.stdout)
            .take(bytes as u64)
            .read_to_end(&mut rgb);
        if got.is_err() || rgb.len() != bytes {
            break;
        }
        frames += 1;
        if !each(Frame::new(size.0, size.1, rgb)?) {
            satisfied = true;
            break;
        }
    }
    let program = running.program;
    let ended = running.end();
    if (ended.excess.is_some() && !satisfied) || (frames == 0 && !ended.well) {
        return Err(failed(program, path, &ended));
    }
    // A pipe that we closed is no fault of the file.
    let complaints = ended.complaints;
    Ok((!satisfied && !complaints.is_empty()).then(|| last_line(&complaints)))
}

pub(super) fn read(path: &Path, wanted: &Wanted) -> Result<Decoded> {
    let began = Instant::now();
    let info = probe(path, wanted.timeout)?;
    let left = || {
        wanted
            .timeout
            .saturating_sub(began.elapsed())
            .max(Duration::from_millis(50))
    };
    let size = fitted(info.width, info.height, wanted.max_side);
    let length = info.seconds.map(|s| (s - wanted.start).max(0.0));
    let window = match (wanted.seconds, length) {
        (Some(w), Some(l)) => Some(w.min(l)),
        (w, l) => w.or(l),
    };
    if let (Pace::Uniform(n), Some(window)) = (wanted.pace, window)
        && window * info.fps > MOST_DECODED
    {
        return by_seeking(path, wanted, info, size, window, n, &left);
    }
    let fps = match wanted.pace {
        Pace::Rate(r) => r.min(info.fps),
        Pace::Thin(r) => info.fps / thinning(info.fps, r) as f64,
        _ => info.fps,
    };
    // What is expected: the length is sometimes wrong or missing, so the frames that come decide.
    let expected = window.map(|w| ((w * fps).round() as usize).max(1));
    match wanted.pace {
        Pace::Uniform(n) => check_bytes(path, n, size.0, size.1, wanted)?,
        _ => check_bytes(path, expected.unwrap_or(1), size.0, size.1, wanted)?,
    }
    let seconds = wanted.seconds.or(info.seconds.map(|s| s + 1.0));
    let most_kept = (wanted.max_bytes / (3 * size.0 * size.1).max(1)).max(1);
    let mut frames: Vec<Frame> = Vec::new();
    let mut times = Vec::new();
    let whole = |each: &mut dyn FnMut(Frame) -> bool| {
        stream(
            path,
            &info,
            wanted.start,
            seconds,
            Some(fps),
            None,
            size,
            left(),
            each,
        )
    };
    let complaint;
    match (wanted.pace, expected) {
        (Pace::Uniform(n), Some(count)) => {
            let all: Vec<f64> = (0..count).map(|i| i as f64 / fps).collect();
            let chosen = choose(
                &all,
                count as f64 / fps,
                &Wanted {
                    start: 0.0,
                    seconds: None,
                    pace: Pace::Uniform(n),
                    ..wanted.clone()
                },
            );
            let mut keep = Keeper::new(&chosen, size);
            let mut index = 0;
            let mut last = None;
            complaint = whole(&mut |f| {
                keep.take(index, &f);
                last = Some((index, f));
                index += 1;
                !keep.full()
            })?;
            frames = keep.frames;
            times = chosen.iter().map(|&i| wanted.start + all[i]).collect();
            // Fewer frames than the file says: the last one stands in for what would have come.
            if let Some((i, f)) = last {
                while frames.len() < n {
                    if let Some(t) = times.get_mut(frames.len()) {
                        *t = wanted.start + i as f64 / fps;
                    }
                    frames.push(f.clone());
                }
            }
        }
        (Pace::Uniform(n), None) => {
            // Nobody knows the length: keep every 2^k-th frame, doubling k whenever there are twice too many.
            let most = (64 * n.max(1)).min(most_kept.max(2 * n)).max(2);
            let (mut step, mut index) = (1usize, 0usize);
            complaint = whole(&mut |f| {
                if index.is_multiple_of(step) {
                    frames.push(f);
                    times.push(wanted.start + index as f64 / fps);
                    if frames.len() >= most {
                        let mut k = 0;
                        frames.retain(|_| {
                            k += 1;
                            k % 2 == 1
                        });
                        let mut k = 0;
                        times.retain(|_| {
                            k += 1;
                            k % 2 == 1
                        });
                        step *= 2;
                    }
                }
                index += 1;
                true
            })?;
            let order = super::uniform_indices(frames.len(), n);
            if !frames.is_empty() {
                times = order.iter().map(|&i| times[i]).collect();
                frames = order.iter().map(|&i| frames[i].clone()).collect();
            }
        }
        _ => {
            complaint = whole(&mut |f| {
                times.push(wanted.start + frames.len() as f64 / fps);
                frames.push(f);
                frames.len() < most_kept
            })?;
        }
    }
    decoded(path, frames, times, info, complaint)
}

/// Single frames of a long video, each looked for by itself.
fn by_seeking(
    path: &Path,
    wanted: &Wanted,
    info: Info,
    size: (usize, usize),
    window: f64,
    n: usize,
    left: &dyn Fn() -> Duration,
) -> Result<Decoded> {
    check_bytes(path, n, size.0, size.1, wanted)?;
    let mut frames = Vec::new();
    let mut times = Vec::new();
    let mut complaint = None;
    for i in 0..n {
        let t = wanted.start + window * (i as f64 + 0.5) / n as f64;
        let mut got = None;
        match stream(path, &info, t, None, None, Some(1), size, left(), |f| {
            got = Some(f);
            false
        }) {
            Ok(c) => complaint = complaint.or(c),
            Err(e @ HumansamError::MissingProgram { .. }) => return Err(e),
            Err(e) => complaint = Some(e.to_string()),
        }
        if let Some(f) = got {
            frames.push(f);
            times.push(t);
        } else if complaint.is_none() {
            complaint = Some(format!("there is no frame at {t:.1} s"));
        }
    }
    decoded(path, frames, times, info, complaint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn descriptions_are_read() {
        let path = std::env::current_exe().unwrap();
        let json = serde_json::json!({"streams": [{"codec_name": "h264", "width": 1280, "height": 720, "avg_frame_rate": "30000/1001", "nb_frames": "90",
            "duration": "3.003", "side_data_list": [{"rotation": -90}]}], "format": {"duration": "3.1"}});
        let info = describe(&path, &json).unwrap();
        assert_eq!(
            (info.width, info.height, info.frames),
            (720, 1280, Some(90))
        );
        assert!((info.fps - 29.97).abs() < 0.01 && info.seconds == Some(3.003));
        let sound = serde_json::json!({"streams": [], "format": {}});
        assert!(
            describe(&path, &sound)
                .unwrap_err()
                .to_string()
                .contains("no video stream")
        );
        let gaps = serde_json::json!({"streams": [{"width": 8, "height": 8, "avg_frame_rate": "45/4", "r_frame_rate": "15/1", "duration": "2"}]});
        assert_eq!(describe(&path, &gaps).unwrap().fps, 15.0);
        let fields = serde_json::json!({"streams": [{"width": 8, "height": 8, "avg_frame_rate": "25/1", "r_frame_rate": "50/1"}]});
        assert_eq!(describe(&path, &fields).unwrap().fps, 25.0);
        let odd = serde_json::json!({"streams": [{"width": 10, "height": 10, "avg_frame_rate": "0/0", "duration": "N/A"}]});
        assert_eq!(describe(&path, &odd).unwrap().fps, 25.0);
    }

    /// `sort` waits for the end of an endless line: it grows until the watch ends it.
    #[test]
    #[cfg(target_os = "linux")]
    fn a_program_that_fills_the_memory_is_ended() {
        let path = Path::new("/dev/zero");
        let limits = Limits {
            time: Duration::from_secs(60),
            memory: 64 << 20,
        };
        let running = start("sort", &words(&["/dev/zero"]), path, limits).unwrap();
        let began = Instant::now();
        while !running.watch.is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(began.elapsed() < limits.time);
        let ended = running.end();
        assert_eq!((ended.well, ended.excess), (false, Some(Excess::Memory)));
        let message = failed("sort", path, &ended).to_string();
        assert!(message.contains("more memory"), "{message}");
    }

    proptest! {
        #[test]
        fn no_description_panics(text in "[ -~]{0,200}", w in any::<i64>(), rate in "[-0-9/.eN]{0,12}", turn in any::<f64>()) {
            let path = std::env::current_exe().unwrap();
            if let Ok(json) = serde_json::from_str(&text) {
                let _ = describe(&path, &json);
            }
            let json = serde_json::json!({"streams": [{"width": w, "height": 9, "avg_frame_rate": rate, "nb_frames": rate, "duration": rate, "tags": {"rotate": rate}, "side_data_list": [{"rotation": turn}]}]});
            let _ = describe(&path, &json);
        }
    }
}
