//! The backend against the suite's loopback registry and against real ones.

mod suite {
    use plyfold_conformance::stages::Server;
    use plyfold_core::{ImageRegistry, Result};

    use crate::open;

    async fn connect(host: String) -> Result<Box<dyn ImageRegistry>> {
        Ok(Box::new(open(&host, |_| ())?))
    }

    plyfold_conformance::registry_suite!(Server::new(connect));
    plyfold_conformance::hostile_suite!(Server::new(connect));
}

use plyfold_core::Result;
use plyfold_registry::{Config, Registry};

/// A registry at `host`, untouched by the credentials of whoever runs the tests.
fn open(host: &str, change: impl FnOnce(&mut Config)) -> Result<Registry> {
    let mut config = Config { anonymous: true, ..Config::default() };
    change(&mut config);
    Registry::new(host, &config)
}
