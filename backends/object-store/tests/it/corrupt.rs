//! Objects that were altered, truncated or replaced in the bucket: each is reported, and none is handed out.

use bytes::Bytes;
use plyfold_core::{
    Artifact, BlobRange, CacheProvider as _, CacheProviderExt as _, Collect, Descriptor, ErrorKind,
    NameChange, Verify,
};
use plyfold_object_store::ObjectStoreCache;

use crate::content::{artifact_key, commit, make, name, names, put, read, set};
use crate::medium::Medium;

const NAME: &str = "a.example/a:1";

async fn filled() -> (Medium, ObjectStoreCache) {
    let mut medium = Medium::memory();
    medium.config.lease_seconds = 1;
    let cache = medium.cache().await.unwrap();
    (medium, cache)
}

/// What an object becomes: cut, altered in each part, replaced.
fn altered(content: &Bytes) -> Vec<Bytes> {
    let mut altered: Vec<Vec<u8>> =
        [17, content.len() / 2, content.len() - 1].map(|end| content[..end].to_vec()).into();
    for at in 0..16 {
        let mut content = content.to_vec();
        let at = content.len() * at / 16;
        content[at] ^= 0x21;
        altered.push(content);
    }
    altered.push(content[1..].to_vec());
    altered.push([content, content].map(Bytes::as_ref).concat());
    altered.extend(
        [
            &b"[1, 2, 3, 4, 5, 6, 7]"[..],
            b"{\"state\":\"live\",\"size\":18446744073709551615,\"token\":\"\"}",
            &[0; 64],
        ]
        .map(<[u8]>::to_vec),
    );
    altered.extend([
        br#"{"state":"live","size":4,"data":"../../../../etc/passwd","token":""}"#.to_vec(),
        vec![b'['; 200_000],
    ]);
    altered.into_iter().map(Bytes::from).collect()
}

async fn content(cache: &ObjectStoreCache, blob: &Descriptor) -> plyfold_core::Result<Bytes> {
    cache.open(blob, BlobRange::FULL).await?.bytes(1 << 24).await
}

fn is_expected(kind: &ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::NotFound)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_blob() {
    for stored in [b"content of a blob".to_vec(), vec![7; 20_000]] {
        let (medium, cache) = filled().await;
        let image = put(&cache, &stored).await.unwrap();
        let path = format!("blobs/{}/{}", image.digest().algorithm(), image.digest().digest());
        let record = medium.record_of(&image).unwrap();
        for altered in altered(&record) {
            medium.raw().write(&path, altered.clone());
            match content(&cache, &image).await {
                Ok(found) => assert_eq!(found, stored, "{altered:?}"),
                Err(e) => assert!(is_expected(e.kind()), "{e:?} of {altered:?}"),
            }
            // It is stored again, whatever it was.
            let here = cache.stat(image.digest()).await.unwrap();
            if here != Some(image.size()) || content(&cache, &image).await.is_err() {
                cache.quarantine(image.digest()).await.unwrap();
            }
            put(&cache, &stored).await.unwrap();
            assert_eq!(content(&cache, &image).await.unwrap(), stored, "{altered:?}");
            set(&cache, NAME, &image).await.unwrap();
            cache.update(&[NameChange::Remove(name(NAME))]).await.unwrap();
            // A collection goes on beside it.
            medium.raw().write(&path, altered);
            cache.usage().await.unwrap();
            cache.collect(&Collect { dry_run: true, ..Collect::default() }).await.unwrap();
        }
    }
}

/// By a writer that was not told of the damage.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_record_is_replaced() {
    let (medium, cache) = filled().await;
    let image = put(&cache, b"content of a blob").await.unwrap();
    let path = format!("blobs/{}/{}", image.digest().algorithm(), image.digest().digest());
    for other in [&b"what another program has put there"[..], &vec![b'x'; 17 << 20]] {
        medium.raw().write(&path, Bytes::copy_from_slice(other));
        assert_eq!(cache.stat(image.digest()).await.unwrap(), None);
        let error = content(&cache, &image).await.unwrap_err();
        assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Corrupt, true));
        put(&cache, b"content of a blob").await.unwrap();
        assert_eq!(content(&cache, &image).await.unwrap(), b"content of a blob"[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact() {
    let (medium, cache) = filled().await;
    commit(make(&cache, &[5; 50]).await).await.unwrap();
    let path_of = |folder: &str| {
        let objects = medium.objects();
        let mut found = objects.into_iter().filter(|(path, size)| path.starts_with(folder) && *size > 16);
        found.next().map(|(path, _)| path)
    };
    for folder in ["artifacts/", "data/artifacts/"] {
        let honest = medium.raw().read(&path_of(folder).unwrap()).unwrap();
        for altered in altered(&honest) {
            medium.raw().write(&path_of(folder).unwrap(), altered.clone());
            match cache.artifact(&artifact_key()).await.unwrap() {
                Artifact::Present(made) => {
                    if let Ok(found) = read(made).await {
                        assert_eq!(found, [5; 50], "{altered:?}");
                    } else {
                        let repair = Verify { repair: true, ..Verify::default() };
                        assert_eq!(cache.verify(&repair).await.unwrap().damage.len(), 1, "{altered:?}");
                    }
                }
                Artifact::Vacant(writer) => drop(writer),
            }
            if let Artifact::Vacant(writer) = cache.artifact(&artifact_key()).await.unwrap() {
                drop(writer);
                commit(make(&cache, &[5; 50]).await).await.unwrap();
            }
            let found = cache.find_artifact(&artifact_key()).await.unwrap().unwrap();
            assert_eq!(read(found).await.unwrap(), [5; 50], "{altered:?}");
            cache.collect(&Collect { dry_run: true, ..Collect::default() }).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name() {
    let (medium, cache) = filled().await;
    let (image, other) = (put(&cache, b"image").await.unwrap(), put(&cache, b"other").await.unwrap());
    set(&cache, "a.example/z:1", &other).await.unwrap();
    set(&cache, NAME, &image).await.unwrap();
    let path = format!("names/{NAME}");
    for altered in altered(&medium.raw().read(&path).unwrap()) {
        medium.raw().write(&path, altered.clone());
        match cache.find_descriptor(&name(NAME)).await {
            Ok(_) => {}
            Err(e) => {
                assert_eq!(
                    (e.kind(), e.hint().is_some()),
                    (&ErrorKind::Corrupt, true),
                    "{e:?} of {altered:?}"
                );
                // Nothing is removed that the name may need, and the other names are listed.
                for e in [cache.list().await.map(drop), cache.collect(&Collect::default()).await.map(drop)] {
                    assert_eq!(*e.unwrap_err().kind(), ErrorKind::Corrupt);
                }
                assert!(cache.find_descriptor(&name("a.example/z:1")).await.unwrap().is_some());
                assert!(cache.update(&[NameChange::Pin(name(NAME))]).await.is_err(), "it has to be known");
            }
        }
        set(&cache, NAME, &image).await.unwrap();
        assert_eq!(names(&cache).await.len(), 2, "{altered:?}");
    }
    medium.raw().write(&path, Bytes::from_static(b"it is not JSON, and longer than 16 bytes"));
    cache.update(&[NameChange::Remove(name(NAME))]).await.unwrap();
    assert_eq!(names(&cache).await.len(), 1);
}

/// A name says that a transaction decides, and that is damaged.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction() {
    let (medium, cache) = filled().await;
    let image = put(&cache, b"image").await.unwrap();
    set(&cache, NAME, &image).await.unwrap();
    let id = "0123456789abcdef0123456789abcdef";
    let object = format!(
        r#"{{"name":"{NAME}","image":null,"pending":{{"image":{{"descriptor":{}}},"transaction":"{id}"}},"token":"t"}}"#,
        serde_json::to_string(&image).unwrap()
    );
    medium.raw().write(&format!("names/{NAME}"), object.clone().into());
    medium.raw().write(&format!("transactions/{id}"), Bytes::from_static(b"it was altered"));
    let error = cache.find_descriptor(&name(NAME)).await.unwrap_err();
    assert_eq!((error.kind(), error.hint().is_some()), (&ErrorKind::Corrupt, true));
    assert_eq!(*cache.list().await.unwrap_err().kind(), ErrorKind::Corrupt);
    set(&cache, NAME, &image).await.unwrap();
    assert_eq!(names(&cache).await.len(), 1);
    // An ID that leads out of the prefix.
    medium.raw().write(&format!("names/{NAME}"), object.replace(id, "../../../other").into());
    assert_eq!(*cache.find_descriptor(&name(NAME)).await.unwrap_err().kind(), ErrorKind::Corrupt);
    set(&cache, NAME, &image).await.unwrap();
    cache.collect(&Collect::default()).await.unwrap();
    assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_marks_the_cache() {
    let (medium, cache) = filled().await;
    put(&cache, b"image").await.unwrap();
    let honest = medium.raw().read("plyfold.json").unwrap();
    for (marker, kind) in [
        (r#"{"version":2,"token":"a newer one"}"#, ErrorKind::Unsupported),
        (r#"{"version":4294967296}"#, ErrorKind::Corrupt),
        (r#"{"format":"of another program"}"#, ErrorKind::Corrupt),
        ("no JSON", ErrorKind::Corrupt),
    ] {
        medium.raw().write("plyfold.json", marker.into());
        let error = medium.cache().await.unwrap_err();
        assert_eq!((error.kind(), error.hint().is_some()), (&kind, true), "{error:?}");
        assert_eq!(medium.raw().read("plyfold.json").unwrap(), marker, "it is not touched");
    }
    medium.raw().write("plyfold.json", honest);
    medium.cache().await.unwrap();
}

/// The objects that only help: the uses, the rights, the leases.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_content() {
    let (medium, cache) = filled().await;
    let image = put(&cache, b"image").await.unwrap();
    set(&cache, NAME, &image).await.unwrap();
    drop(cache.lease(std::slice::from_ref(image.digest())).await.unwrap());
    drop(cache.single_flight("some work").await.unwrap());
    cache.settle().await;
    cache.collect(&Collect::default()).await.unwrap();
    let lease = cache.lease(std::slice::from_ref(image.digest())).await.unwrap();
    let objects = medium.objects();
    let helping = ["uses", "flights/", "leases/"].map(|folder| {
        objects
            .iter()
            .find(|(path, _)| path.starts_with(folder))
            .unwrap_or_else(|| panic!("{folder} in {objects:?}"))
    });
    for (path, _) in helping {
        for content in
            [Bytes::new(), Bytes::from_static(b"it was altered in the bucket"), vec![b'['; 100_000].into()]
        {
            medium.raw().write(path, content);
            drop(cache.single_flight("some work").await.unwrap());
            cache.collect(&Collect::default()).await.unwrap();
            assert_eq!(cache.verify(&Verify::default()).await.unwrap().damage, []);
            cache.verify_blob(&image).await.unwrap();
        }
    }
    drop(lease);
}
