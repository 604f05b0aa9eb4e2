//! The node's key: made once, kept for ever.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ed25519_dalek::{SECRET_KEY_LENGTH, SigningKey};

use super::{DataDirError, exists, io_error, replace_file};
use crate::platform::Platform;
use crate::random;

/// Loads the key; makes it on the first start. True when it was made now.
pub(super) fn load_or_create(
    platform: &dyn Platform,
    dir: &Path,
) -> Result<(SigningKey, bool), DataDirError> {
    let path = dir.join("node.key");
    if exists(&path)? {
        return Ok((load(&path)?, false));
    }
    if exists(&dir.join("store").join("db"))? {
        let why = "it is missing, though there is a store: put it back, or move the store away to start as a new node";
        return Err(DataDirError::Key { path, why: why.to_owned() });
    }
    Ok((create(platform, &path)?, true))
}

/// Gives the directory another key, because a node with this one runs elsewhere. The old one goes with the store
/// that is condemned for the same reason.
pub(super) fn replace(
    platform: &dyn Platform,
    dir: &Path,
    store: &Path,
) -> Result<(), DataDirError> {
    let path = dir.join("node.key");
    if exists(&path)? {
        let kept = store.join("node.key");
        fs::copy(&path, &kept).map_err(|source| io_error(&kept, "keep the old key", source))?;
    }
    create(platform, &path).map(drop)
}

fn load(path: &Path) -> Result<SigningKey, DataDirError> {
    let seed = fs::read(path).map_err(|source| io_error(path, "read the node's key", source))?;
    let seed: [u8; SECRET_KEY_LENGTH] =
        seed.as_slice().try_into().map_err(|_| DataDirError::Key {
            path: path.to_owned(),
            why: format!(
                "it has {} bytes, not {SECRET_KEY_LENGTH}: put the right file back",
                seed.len()
            ),
        })?;
    restrict(path);
    Ok(SigningKey::from_bytes(&seed))
}

fn create(platform: &dyn Platform, path: &Path) -> Result<SigningKey, DataDirError> {
    let seed: [u8; SECRET_KEY_LENGTH] = random::bytes(platform)?;
    replace_file(path, 0o600, &seed)
        .map_err(|source| io_error(path, "write the node's key", source))?;
    Ok(SigningKey::from_bytes(&seed))
}

/// Mode bits that let others read or write.
const OTHERS: u32 = 0o077;

/// Takes away what others may do with the file. Volumes come with odd modes (Kubernetes adds
/// group access), so this mends and warns, and does not refuse.
fn restrict(path: &Path) {
    let Ok(meta) = File::open(path).and_then(|file| file.metadata()) else {
        return;
    };
    let mode = meta.permissions().mode() & 0o777;
    if mode & OTHERS == 0 {
        return;
    }
    match fs::set_permissions(path, Permissions::from_mode(0o600)) {
        Ok(()) => {
            tracing::warn!(key = %path.display(), "the node's key was open to others (mode {mode:03o}): now 600");
        }
        Err(error) => {
            tracing::warn!(key = %path.display(), %error, "the node's key is open to others (mode {mode:03o})");
        }
    }
}
