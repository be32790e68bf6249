//! Core's own backend and cache keep every rule.

use plyfold_conformance::fixtures::Memory;
use plyfold_conformance::{cache_suite, hostile_suite, registry_suite};

mod registry {
    super::registry_suite!(super::Memory);
}

mod hostile {
    super::hostile_suite!(super::Memory);
}

mod cache {
    super::cache_suite!(super::Memory);
}
