//! Backends that speak the distribution API, on the fault server.

use std::future::Future;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use plyfold_core::{ImageRegistry, Reference, Result, digest};

use super::Opener;
use crate::server::{Auth, Fault, FaultServer, Login, On};
use crate::{Condition, RetryAfter, Stage, Staged, Subject};

/// The loopback [`FaultServer`].
#[derive(Debug)]
pub struct Server(Opener<String>);

impl Server {
    /// A stage whose backend is opened on `HOST:PORT`, plain HTTP, without credentials.
    pub fn new<F>(open: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Box<dyn ImageRegistry>>> + Send + 'static,
    {
        Self(Opener::new(open))
    }

    async fn subject(&self, images: &[Staged<'_>], break_it: impl FnOnce(&FaultServer)) -> Subject {
        let server = FaultServer::start().expect("the loopback interface has a free port");
        let mut references = Vec::new();
        for image in images {
            let (repository, tag) = (image.reference.repository(), image.reference.tag().unwrap_or("latest"));
            server.put(repository, tag, image.sample);
            references.push(Reference::with_tag(
                server.host().to_owned(),
                repository.to_owned(),
                tag.to_owned(),
            ));
        }
        break_it(&server);
        let registry = self.0.open(server.host().to_owned()).await;
        Subject::new(registry, references, server)
    }
}

#[async_trait]
impl Stage for Server {
    fn holds_any_host(&self) -> bool {
        false
    }

    async fn open(&self, images: &[Staged<'_>]) -> Subject {
        self.subject(images, |_| ()).await
    }

    async fn open_under(&self, image: &Staged<'_>, condition: Condition) -> Option<Subject> {
        let always = |fault: Vec<Fault>| move |server: &FaultServer| server.script(On::any(), fault);
        let images = std::slice::from_ref(image);
        Some(match condition {
            Condition::Denied => self.subject(images, always(vec![Fault::Status(403)])).await,
            Condition::DigestLies => {
                let other = Some(digest::sha256(b"other content").to_string());
                self.subject(images, always(vec![Fault::Header("Docker-Content-Digest", other)])).await
            }
            Condition::DigestUnstated => {
                self.subject(images, |server| server.configure(|options| options.digest_header = false)).await
            }
            Condition::RateLimited(shape) => {
                let value = match shape {
                    RetryAfter::Date => {
                        Some(httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30)))
                    }
                    RetryAfter::Missing => None,
                    RetryAfter::Seconds => Some("7".to_owned()),
                };
                self.subject(images, always(vec![Fault::Status(429), Fault::Header("Retry-After", value)]))
                    .await
            }
            Condition::Unauthorized => {
                let auth = Auth::Basic(Login::new("user", "password"));
                self.subject(images, |server| server.configure(|options| options.auth = auth)).await
            }
            Condition::Unavailable => self.subject(images, always(vec![Fault::Status(503)])).await,
        })
    }

    fn not_judged(&self) -> &'static [&'static str] {
        &["multi_image_archive_enumerates_and_selects"]
    }
}
