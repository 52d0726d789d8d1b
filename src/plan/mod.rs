//! (to come)

pub(crate) mod options;
