//! The wire: what clients and nodes say, as generated code, and its conversions to the core types.
//!
//! - [`v1`]: the client API (`triad.v1`), reflected through [`FILE_DESCRIPTOR_SET`].
//! - [`peer::v1`]: what nodes say to each other (`triad.peer.v1`).
//! - [`test::v1`]: what tests ask of programs that were built for them (`triad.test.v1`).
//! - [`convert`]: from and to the core types; the checks of what arrives.

pub mod convert;

/// The client API, package `triad.v1`.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
pub mod v1 {
    tonic::include_proto!("triad.v1");
}

/// What nodes say to each other.
pub mod peer {
    /// Package `triad.peer.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
    pub mod v1 {
        tonic::include_proto!("triad.peer.v1");

        /// The descriptors of this package and all it imports: for tests, never served.
        pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("triad.peer.v1");
    }
}

/// What tests ask of programs that were built for them.
pub mod test {
    /// Package `triad.test.v1`.
    #[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
    pub mod v1 {
        tonic::include_proto!("triad.test.v1");

        /// The descriptors of this package and all it imports, for gRPC reflection.
        pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("triad.test.v1");
    }
}

/// The descriptors of the client API and all it imports, for gRPC reflection. The peer API is not in it.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("triad.v1");
