//! Protobuf over HTTP POST, with retries.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use prost::Message;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::limits;
use crate::FederatedError;

/// Where a SuperLink is and how to reach it.
#[derive(Clone, Debug)]
pub struct Address {
    /// `http://host:port` or `https://host:port`.
    pub url: String,
    /// Certificate of the authority that signed the server's, PEM; the usual ones without.
    pub root_certificate: Option<PathBuf>,
    /// For how long a SuperLink that does not answer is asked again.
    pub patience: Duration,
}

/// A client of one service.
#[derive(Debug)]
pub struct Service {
    agent: Agent,
    prefix: String,
    patience: Duration,
    headers: Vec<(&'static str, String)>,
}

impl Service {
    /// A client of the service with this path, e.g. `v1/fleet`.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] for a URL of another scheme, [`FederatedError::Io`] and [`FederatedError::Format`] for the certificate.
    pub fn new(address: &Address, path: &str) -> Result<Self, FederatedError> {
        if !address.url.starts_with("http://") && !address.url.starts_with("https://") {
            return Err(FederatedError::setting(
                "superlink",
                "http://HOST:PORT or https://HOST:PORT",
                &address.url,
                "8000 is the usual port",
            ));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_global(Some(Duration::from_secs(120)));
        if let Some(file) = &address.root_certificate {
            config = config.tls_config(
                TlsConfig::builder()
                    .root_certs(RootCerts::new_with_certs(&[certificate(file)?]))
                    .build(),
            );
        }
        Ok(Self {
            agent: config.build().into(),
            prefix: format!("{}/{path}/", address.url.trim_end_matches('/')),
            patience: address.patience,
            headers: Vec::new(),
        })
    }

    /// Sends this header with every request.
    pub fn set_header(&mut self, name: &'static str, value: String) {
        self.headers.retain(|(n, _)| *n != name);
        self.headers.push((name, value));
    }

    /// One call. A server that is not there, busy or starting is asked again until patience ends.
    ///
    /// # Errors
    /// [`FederatedError::Remote`] with what the server said, [`FederatedError::TooLarge`] for an answer above [`limits::OBJECT`].
    pub fn call<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        fresh: &dyn Fn() -> Result<Vec<(&'static str, String)>, FederatedError>,
    ) -> Result<A, FederatedError> {
        self.call_within(method, request, fresh, limits::OBJECT)
    }

    /// The same for an answer of at most `most` bytes.
    ///
    /// # Errors
    /// [`FederatedError::Remote`] with what the server said, [`FederatedError::TooLarge`] for a larger answer.
    pub fn call_within<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
        fresh: &dyn Fn() -> Result<Vec<(&'static str, String)>, FederatedError>,
        most: u64,
    ) -> Result<A, FederatedError> {
        let url = format!("{}{method}", self.prefix);
        let body = request.encode_to_vec();
        let began = Instant::now();
        let mut pause = Duration::from_millis(100);
        loop {
            let problem = match self.once(&url, &body, &fresh()?, most) {
                Ok((200, answer)) => {
                    return A::decode(answer.as_slice()).map_err(|e| FederatedError::Remote {
                        call: method.to_owned(),
                        status: 200,
                        problem: format!("its answer cannot be read: {e}"),
                    });
                }
                // 500 too: a SuperLink answers so while its database is locked.
                Ok((status @ (429 | 500 | 502..=504), answer)) => (status, said(&answer)),
                Ok((status, answer)) => {
                    return Err(FederatedError::Remote {
                        call: method.to_owned(),
                        status,
                        problem: said(&answer),
                    });
                }
                // It would be as large the next time.
                Err(Refused::Size(bytes)) => {
                    return Err(limits::too_large(
                        &format!("answer of the SuperLink to {method}"),
                        bytes,
                        most,
                        "it is not read; if a node sent it, that node is left out",
                    ));
                }
                Err(Refused::Other(e)) => (0, self.unreachable(&e)),
            };
            if began.elapsed() + pause > self.patience {
                return Err(FederatedError::Remote {
                    call: method.to_owned(),
                    status: problem.0,
                    problem: problem.1,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(5));
        }
    }

    /// What to tell of a server that did not answer.
    fn unreachable(&self, e: &ureq::Error) -> String {
        format!(
            "{} did not answer within {} s ({e}); is it running there?",
            self.prefix,
            self.patience.as_secs()
        )
    }

    fn once(
        &self,
        url: &str,
        body: &[u8],
        fresh: &[(&'static str, String)],
        most: u64,
    ) -> Result<(u16, Vec<u8>), Refused> {
        let mut request = self
            .agent
            .post(url)
            .header("content-type", "application/protobuf")
            .header("accept", "application/protobuf");
        for (name, value) in self.headers.iter().chain(fresh) {
            request = request.header(*name, value);
        }
        let mut response = request.send(body)?;
        // What is announced is refused before a byte of it is read; what comes unannounced while it comes.
        if let Some(bytes) = response.body().content_length().filter(|b| *b > most) {
            return Err(Refused::Size(bytes));
        }
        let answer = response
            .body_mut()
            .with_config()
            .limit(most)
            .read_to_vec()?;
        Ok((response.status().as_u16(), answer))
    }
}

/// Why there is no answer.
enum Refused {
    /// It has at least so many bytes, more than are read.
    Size(u64),
    /// Anything else.
    Other(ureq::Error),
}

impl From<ureq::Error> for Refused {
    fn from(e: ureq::Error) -> Self {
        match e {
            ureq::Error::BodyExceedsLimit(most) => Self::Size(most + 1),
            other => Self::Other(other),
        }
    }
}

/// The beginning of an answer that is no message, as text.
fn said(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(400)]).into_owned();
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn certificate(file: &Path) -> Result<Certificate<'static>, FederatedError> {
    let pem = std::fs::read(file).map_err(|e| FederatedError::io(file, e))?;
    Certificate::from_pem(&pem).map_err(|e| {
        FederatedError::format(
            file.display().to_string(),
            format!("it is no certificate in PEM form ({e})"),
            "give the certificate of the authority that signed the SuperLink's",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flower::proto::Nothing;
    use std::io::{Read, Write};

    /// Answers one connection after the other with these statuses.
    fn server(statuses: &'static [u16]) -> (String, std::thread::JoinHandle<()>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            for status in statuses {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0u8; 4096];
                let _ = stream.read(&mut request).unwrap();
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
                stream.write_all(head.as_bytes()).unwrap();
            }
        });
        (url, thread)
    }

    fn ask<A: Message + Default>(
        url: String,
        patience: Duration,
        most: u64,
    ) -> Result<A, FederatedError> {
        let address = Address {
            url,
            root_certificate: None,
            patience,
        };
        let service = Service::new(&address, "v1/fleet").unwrap();
        service.call_within("x", &Nothing {}, &|| Ok(Vec::new()), most)
    }

    fn call(statuses: &'static [u16], patience: Duration) -> Result<Nothing, FederatedError> {
        let (url, thread) = server(statuses);
        let answer = ask(url, patience, limits::OBJECT);
        thread.join().unwrap();
        answer
    }

    /// Answers one connection with this head, and then bytes until the other side has had enough, at most `body` of them; returns how many were taken.
    fn flood(head: &'static str, body: usize) -> (String, std::thread::JoinHandle<usize>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let thread = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0u8; 4096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            let mut sent = 0;
            while sent < body && stream.write_all(&[10; 4096]).is_ok() {
                sent += 4096;
            }
            sent
        });
        (url, thread)
    }

    #[test]
    fn an_answer_that_says_it_is_too_large_is_refused_before_a_byte_of_it_is_read() {
        let (url, thread) = flood("HTTP/1.1 200 OK\r\ncontent-length: 3221225472\r\n\r\n", 0);
        let began = Instant::now();
        let e = ask::<Nothing>(url, Duration::from_secs(600), limits::OBJECT).unwrap_err();
        let said = e.to_string();
        assert!(
            matches!(
                e,
                FederatedError::TooLarge {
                    bytes: 3_221_225_472,
                    ..
                }
            ),
            "{said}"
        );
        assert!(said.contains("at most 67108864 (64.0 MiB)"), "{said}");
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it was asked again"
        );
        thread.join().unwrap();
    }

    #[test]
    fn an_answer_without_a_length_is_read_up_to_its_limit_only() {
        let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        let (url, thread) = flood(head, 64 << 20);
        let e = ask::<Nothing>(url, Duration::from_secs(600), 1 << 20).unwrap_err();
        assert!(
            matches!(
                e,
                FederatedError::TooLarge {
                    limit: 1_048_576,
                    ..
                }
            ),
            "{e}"
        );
        // The rest of the 64 MiB lies in the buffers of the operating system at most.
        assert!(thread.join().unwrap() < 32 << 20);
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let e = ask::<Nothing>(url.clone(), Duration::ZERO, 100).unwrap_err();
        assert!(matches!(e, FederatedError::Remote { status: 0, .. }));
        assert!(e.to_string().contains(&url), "{e}");
    }

    #[test]
    fn a_busy_server_is_asked_again_and_one_that_refuses_is_not() {
        call(&[500, 503, 200], Duration::from_secs(60)).unwrap();
        let refused = call(&[403], Duration::from_secs(60)).unwrap_err();
        assert!(matches!(
            refused,
            FederatedError::Remote { status: 403, .. }
        ));
        let busy = call(&[500], Duration::ZERO).unwrap_err();
        assert!(matches!(busy, FederatedError::Remote { status: 500, .. }));
    }
}
