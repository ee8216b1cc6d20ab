//! What the limit of open files means in sessions; pure.

/// Descriptors that are not for sessions: listeners, runtimes, Sentinel links, control connections. Where the limit
/// is so low that nearly none would be left for sessions, half of it.
const RESERVED_FILES: u64 = 256;
/// What a session takes: its client's socket and its master's.
const FILES_PER_SESSION: u64 = 2;
/// Fewer sessions than this deserve a word.
pub const FEW_SESSIONS: u64 = 1000;

/// Sessions that leave the control plane its descriptors; with none left it could not ask a new master for its role.
pub fn sessions_of(limit: u64) -> u64 {
    (limit - RESERVED_FILES.min(limit / 2)) / FILES_PER_SESSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_never_take_what_the_control_plane_needs() {
        for (limit, sessions) in [(262_144, 130_944), (1024, 384), (300, 75), (1, 0)] {
            assert_eq!(sessions_of(limit), sessions, "of {limit}");
        }
    }
}
