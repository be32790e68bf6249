//! Property: whatever happens on the wire, a pull ends, and ends well when the trouble does.

use std::time::Duration;

use plyfold_conformance::server::{Auth, Fault, FaultServer, On, Options};
use plyfold_core::memory::MemoryCache;
use plyfold_core::{CacheProviderExt as _, Descriptor, ErrorKind, PullOptions, PullResult, Reference, pull};
use plyfold_registry::Registry;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};
use tokio::runtime::Runtime;

use crate::open;
use crate::transfers::{noise, put_blobs, quick};

/// The size of the layer in bytes: some windows of a connection.
const SIZE: usize = 400 << 10;

/// One thing that goes wrong, once.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Expired,
    Refused,
    Reset(u64),
    Slow,
    Stall(u64),
    Status(u16),
    Throttled(Option<&'static str>),
    Trickle,
    Truncated(u64),
    WrongRange(u64),
}

impl Trouble {
    fn faults(self, server: &FaultServer) -> Vec<Fault> {
        let header = |name, value: String| Fault::Header(name, Some(value));
        match self {
            Self::Expired => vec![Fault::TokenExpiry],
            Self::Refused => {
                let challenge = format!(r#"Bearer realm="{}/token",service="s""#, server.url());
                vec![Fault::Status(401), header("WWW-Authenticate", challenge)]
            }
            Self::Reset(at) => vec![Fault::ResetAt(at)],
            Self::Slow => vec![Fault::Pace(16 << 10, Duration::from_millis(2))],
            Self::Stall(at) => vec![Fault::StallAt(at)],
            Self::Status(status) => vec![Fault::Status(status)],
            Self::Throttled(delay) => {
                vec![Fault::Status(429), Fault::Header("Retry-After", delay.map(str::to_owned))]
            }
            Self::Trickle => vec![Fault::Pace(1, Duration::from_millis(20))],
            Self::Truncated(at) => vec![Fault::TruncateAt(at)],
            // Slowly: bytes that a server sends before it sees the close are not counted against the client.
            Self::WrongRange(shift) => {
                vec![Fault::WrongRange(shift), Fault::Pace(2048, Duration::from_millis(4))]
            }
        }
    }

    /// Whether the registry says that the token is no good. Twice in a row that is its last word, not trouble.
    fn is_refusal(self) -> bool {
        matches!(self, Self::Expired | Self::Refused)
    }

    /// What a pull ends in when nothing else ever happens.
    fn kind(self) -> ErrorKind {
        match self {
            Self::Expired | Self::Refused => ErrorKind::Auth,
            Self::Stall(_) | Self::Trickle => ErrorKind::Timeout,
            Self::Throttled(delay) => ErrorKind::RateLimited {
                retry_after: delay.and_then(|text| text.parse().ok()).map(Duration::from_secs),
            },
            _ => ErrorKind::Unavailable,
        }
    }
}

/// Trouble that comes after at most `most` bytes.
fn trouble(most: u64) -> impl Strategy<Value = Trouble> {
    let status = prop_oneof![Just(500), Just(502), Just(503), Just(504)];
    prop_oneof![
        2 => Just(Trouble::Expired),
        2 => Just(Trouble::Refused),
        4 => (0..most).prop_map(Trouble::Reset),
        1 => (0..most).prop_map(Trouble::Stall),
        2 => status.prop_map(Trouble::Status),
        2 => prop_oneof![Just(None), Just(Some("0")), Just(Some("soon"))].prop_map(Trouble::Throttled),
        4 => (0..most).prop_map(Trouble::Truncated),
        3 => (1u64..1000).prop_map(Trouble::WrongRange),
    ]
}

/// What ends by itself.
fn finite() -> impl Strategy<Value = Vec<Trouble>> {
    let any = prop_oneof![9 => trouble(SIZE as u64), 1 => Just(Trouble::Slow)];
    proptest::collection::vec(any, 0..9).prop_map(|mut script| {
        script.dedup_by(|a, b| a.is_refusal() && b.is_refusal());
        script
    })
}

/// What comes again and again, and lets next to nothing through.
fn infinite() -> impl Strategy<Value = Vec<Trouble>> {
    let hopeless = |trouble: &Trouble| !matches!(trouble, Trouble::WrongRange(_));
    let any = prop_oneof![9 => trouble(1000).prop_filter("it lets the whole through", hopeless),
        1 => Just(Trouble::Trickle)];
    proptest::collection::vec(any, 1..4)
}

/// One server and one client for all cases of a property.
struct Bench {
    runtime: Runtime,
    server: FaultServer,
    registry: Registry,
    name: Reference,
    layer: Descriptor,
}

impl Bench {
    fn new() -> Self {
        let auth = Auth::Bearer { login: None, ttl: Duration::from_secs(300), realm: None };
        let server = FaultServer::with(Options { auth, ..Options::default() }).unwrap();
        let (name, mut layers) = put_blobs(&server, &[noise(7, SIZE)]);
        let registry = open(server.host(), |_| ());
        let runtime = Runtime::new().unwrap();
        Self { runtime, server, registry, name, layer: layers.remove(0) }
    }

    fn pull(&self, options: &PullOptions) -> (MemoryCache, plyfold_core::Result<PullResult>) {
        let cache = MemoryCache::new().unwrap();
        let result = self.runtime.block_on(pull(&self.registry, &self.name, &cache, options));
        (cache, result)
    }

    fn on_layer(&self) -> On {
        On::blob(self.layer.digest()).method("GET")
    }

    fn script(&self, script: &[Trouble]) {
        for trouble in script {
            self.server.script(self.on_layer().times(1), trouble.faults(&self.server));
        }
    }

    /// Trouble that ends: the right content, and little more on the wire than that.
    fn ends_well(&self, script: &[Trouble]) -> TestCaseResult {
        self.server.clear_scripts();
        self.server.clear_requests();
        self.script(script);
        let mut options = quick();
        // A machine under load may add failures of its own.
        options.retry.attempts = script.len() as u32 + 4;
        options.stall = Duration::from_secs(1);
        let (cache, result) = self.pull(&options);
        prop_assert!(result.is_ok(), "{result:?}");
        let verdict = self.runtime.block_on(cache.verify_blob(&self.layer));
        prop_assert!(verdict.is_ok(), "{verdict:?}");
        let sent = self.server.served(self.layer.digest()).bytes;
        let bound = (SIZE + script.len() * (64 << 10)) as u64;
        prop_assert!(sent <= bound, "{sent} bytes, {bound} are allowed");
        Ok(())
    }

    /// Trouble without end: an error that says what kind of trouble, after as many attempts as were asked for.
    fn ends(&self, script: &[Trouble]) -> TestCaseResult {
        const ATTEMPTS: usize = 4;
        self.server.clear_scripts();
        self.server.clear_requests();
        for _ in 0..=ATTEMPTS {
            self.script(script);
            self.script(script);
        }
        let mut options = quick();
        options.retry.attempts = ATTEMPTS as u32;
        let (_, result) = self.pull(&options);
        let Err(error) = result else { return Err(TestCaseError::fail("it ended well")) };
        let kinds: Vec<_> = script.iter().map(|trouble| trouble.kind()).collect();
        // A machine under load may find the server too slow where it is nothing but broken.
        prop_assert!(kinds.contains(error.kind()) || *error.kind() == ErrorKind::Timeout, "{error:?}");
        // Each attempt asks again at most once, with a new token.
        let asked = self.server.served(self.layer.digest()).requests;
        prop_assert!(asked <= 2 * ATTEMPTS, "{asked} requests");
        Ok(())
    }
}

fn judged<S: Strategy>(cases: u32, strategy: S, judge: impl Fn(S::Value) -> TestCaseResult) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 40, ..Config::default() };
    TestRunner::new(config).run(&strategy, judge).unwrap();
}

#[test]
fn trouble_that_ends_costs_little() {
    let bench = Bench::new();
    judged(24, finite(), |script| bench.ends_well(&script));
}

#[test]
fn trouble_without_end_ends_in_its_own_kind() {
    let bench = Bench::new();
    for trouble in [Trouble::Stall(500), Trouble::Trickle, Trouble::Refused, Trouble::Expired] {
        bench.ends(&[trouble]).unwrap();
    }
    judged(16, infinite(), |script| bench.ends(&script));
}
