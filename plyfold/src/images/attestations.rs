//! What attests to an image: SBOMs and provenance.

use plyfold_core::{
    Advice, Attestation, AttestationKind, CacheProviderExt as _, Descriptor, Error, ErrorKind,
    ImageAttestations as _, PullOptions, PullPolicy, RegistrySource, Result, reference,
};

use super::Images;

/// Its name in messages, and what is of that kind.
type Wanted = (&'static str, fn(AttestationKind) -> bool);

impl Images {
    /// The SBOMs of an image, in SPDX and `CycloneDX`; empty when it has none. `image` is written as for
    /// [`pull`](Self::pull). No layer is fetched, and nothing is stored.
    ///
    /// They are those in the cache, where it has the image with what attests to it. A pull of one platform does not bring
    /// that: then the image's own place is asked for what belongs to the digest that the cache has, unless the
    /// [policy](PullOptions::policy) is [`Never`](PullPolicy::Never). Of the options platform, policy, credential,
    /// retry and progress count. Signatures are not verified.
    ///
    /// # Errors
    /// Those of [`Backends::open`](crate::Backends::open) and [`ImageAttestations::sboms`](crate::ImageAttestations::sboms);
    /// [`NotFound`](ErrorKind::NotFound) under [`Never`](PullPolicy::Never) when the cache does not have the image, or what
    /// its index says attests to it.
    pub async fn sboms(&self, image: &str, options: &PullOptions) -> Result<Vec<Attestation>> {
        self.attesting(image, options, ("SBOM", AttestationKind::is_sbom)).await
    }

    /// How an image was built, as SLSA's provenance says it; empty when nothing says it. As [`sboms`](Self::sboms) otherwise.
    ///
    /// # Errors
    /// As [`sboms`](Self::sboms).
    pub async fn provenance(&self, image: &str, options: &PullOptions) -> Result<Vec<Attestation>> {
        self.attesting(image, options, ("provenance", |kind| kind == AttestationKind::Provenance)).await
    }

    async fn attesting(
        &self,
        image: &str,
        options: &PullOptions,
        wanted: Wanted,
    ) -> Result<Vec<Attestation>> {
        let operation = options.progress.operation();
        let attempt = || Box::pin(self.attested(image, options, wanted));
        let found = options.retry.run("attestations", operation.progress(), attempt).await;
        operation.end(found)
    }

    async fn attested(
        &self,
        image: &str,
        options: &PullOptions,
        (what, is_wanted): Wanted,
    ) -> Result<Vec<Attestation>> {
        let never = options.policy == PullPolicy::Never;
        // The cache answers a tenant's question only after the registry has agreed.
        let is_here = never || (options.policy == PullPolicy::IfMissing && options.credential.is_none());
        let name = self.name(image).await?;
        let root = if is_here { self.cache.find_descriptor(&name).await? } else { None };
        if root.is_none() && never {
            return Err(Error::not_found("not in the store")
                .with_image(&name)
                .with_endpoint(&self.cache)
                .with_advice(Advice::Pull { image: image.to_owned() }));
        }
        // Everything that attests to it in its index is here, and is nothing that is wanted.
        let mut has_none = false;
        if root.is_some() {
            let here = async {
                let source = self.cache.new_source(&name, &options.platform).await?;
                source.attestations_of(is_wanted).await
            };
            match here.await.map_err(|e| e.with_image(&name)) {
                Ok(found) if !found.is_empty() || never => return Ok(found),
                Ok(_) => has_none = true,
                Err(e) if *e.kind() != ErrorKind::NotFound || never => return Err(e),
                Err(_) => {}
            }
        }
        let there = Box::pin(self.attested_there(image, options, root.as_ref(), is_wanted)).await;
        there.map_err(|e| if has_none && e.is_retryable() { not_asked(what, e).with_image(&name) } else { e })
    }

    /// What the image's own place has, of what the store has under its name if it has that.
    async fn attested_there(
        &self,
        image: &str,
        options: &PullOptions,
        root: Option<&Descriptor>,
        is_wanted: fn(AttestationKind) -> bool,
    ) -> Result<Vec<Attestation>> {
        let opened = self.opened(image, options.credential.clone()).await?;
        let named = opened.reference().await?;
        let named = match root {
            // What the name stands for there may be another image by now.
            Some(root) => reference::by_digest(&named, root.digest()),
            None => named,
        };
        let at = |e: Error| e.with_image(&named);
        let source = RegistrySource::open(opened.registry, &named, &options.platform).await.map_err(at)?;
        source.attestations_of(is_wanted).await.map_err(at)
    }
}

/// Why it is not known whether there is none: the store has none, and more may refer to the image in its registry.
fn not_asked(what: &str, error: Error) -> Error {
    let message = format!("the store has no {what} of the image, and its registry cannot be asked");
    let (kind, attempts) = (error.kind().clone(), error.attempts());
    let error = Error::new(kind, message).with_source(error);
    match attempts {
        Some(attempts) => error.with_attempts(attempts),
        None => error,
    }
}
