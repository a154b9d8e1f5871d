//! The allocator of the program: jemalloc, set up for small processes that live for months.
//!
//! A server allocates from several threads at once for hours on end, and glibc's allocator keeps what was freed in between
//! two long-lived pieces. docs/performance.md has what both take.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Two arenas, since no more threads than that work at a time on a small node, and four per core would each keep memory of
/// its own; freed pages go back to the system after a second; no thread beside ours. Read by jemalloc before `main`.
#[allow(unsafe_code, reason = "the name is how jemalloc finds its settings; it is read, never written")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub(crate) static SETTINGS: &[u8; 79] =
    b"narenas:2,tcache_max:4096,dirty_decay_ms:1000,muzzy_decay_ms:0,abort_conf:true\0";
