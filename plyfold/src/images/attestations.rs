//! What attests to an image: SBOMs and provenance.

use plyfold_core::{
    Attestation, AttestationKind, CacheProviderExt as _, Error, ErrorKind, ImageAttestations as _,
    PullOptions, PullPolicy, RegistrySource, Result, reference,
};

use super::Images;

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
        self.attesting(image, options, AttestationKind::is_sbom).await
    }

    /// How an image was built, as SLSA's provenance says it; empty when nothing says it. As [`sboms`](Self::sboms) otherwise.
    ///
    /// # Errors
    /// As [`sboms`](Self::sboms).
    pub async fn provenance(&self, image: &str, options: &PullOptions) -> Result<Vec<Attestation>> {
        self.attesting(image, options, |kind| kind == AttestationKind::Provenance).await
    }

    async fn attesting(
        &self,
        image: &str,
        options: &PullOptions,
        is_wanted: fn(AttestationKind) -> bool,
    ) -> Result<Vec<Attestation>> {
        let operation = options.progress.operation();
        let attempt = || Box::pin(self.attested(image, options, is_wanted));
        let found = options.retry.run("attestations", operation.progress(), attempt).await;
        operation.end(found)
    }

    async fn attested(
        &self,
        image: &str,
        options: &PullOptions,
        is_wanted: fn(AttestationKind) -> bool,
    ) -> Result<Vec<Attestation>> {
        let never = options.policy == PullPolicy::Never;
        // The cache answers a tenant's question only after the registry has agreed.
        let is_here = never || (options.policy == PullPolicy::IfMissing && options.credential.is_none());
        let name = self.name(image).await?;
        let root = if is_here { self.cache.find_descriptor(&name).await? } else { None };
        if root.is_some() || never {
            let here = async {
                let source = self.cache.new_source(&name, &options.platform).await?;
                of_kind(&source, is_wanted).await
            };
            match here.await.map_err(|e| e.with_image(&name)) {
                Ok(found) if !found.is_empty() || never => return Ok(found),
                Err(e) if *e.kind() != ErrorKind::NotFound || never => return Err(e),
                _ => {}
            }
        }
        let opened = self.opened(image, options.credential.clone()).await?;
        let named = opened.reference().await?;
        let named = match &root {
            // What the name stands for there may be another image by now.
            Some(root) => reference::by_digest(&named, root.digest()),
            None => named,
        };
        let at = |e: Error| e.with_image(&named);
        let source = RegistrySource::open(opened.registry, &named, &options.platform).await.map_err(at)?;
        of_kind(&source, is_wanted).await.map_err(at)
    }
}

async fn of_kind(
    source: &RegistrySource,
    is_wanted: fn(AttestationKind) -> bool,
) -> Result<Vec<Attestation>> {
    let mut found = Vec::new();
    for attestation in source.attestations().await? {
        found.extend(attestation.typed().await?.filter(|one| is_wanted(one.kind())));
    }
    Ok(found)
}
