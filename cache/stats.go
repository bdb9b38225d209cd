package cache

// Stats is a snapshot of what a Cache did and holds. Counts are since Open.
type Stats struct {
	// Questions about one name: answered from memory, so with "there is no
	// such name", asked, and answered by somebody else's request under way.
	Hits, NegativeHits, Misses, Collapsed int64
	ListHits, ListMisses                  int64 // listings from memory, and asked
	Entries                               int64 // names remembered, those in listings too
	Evictions                             int64 // answers dropped for want of room

	// Blocks of content that were here, were fetched because a reader waited
	// for them, and were under way already when one did.
	ChunkHits, ChunkMisses, ChunkCollapsed int64
	ChunkEvictions                         int64
	ChunkCorrupt                           int64 // broken on disk, and fetched again
	ChunkDiskErrors                        int64 // chunks that the disk did not take or give
	ChunkBytes, ChunkMemory                int64 // held on disk, in memory

	OpenFiles   int64 // handles
	StagedFiles int64 // contents in staging
	DirtyFiles  int64 // files that the bucket does not have as they are here
	DirtyBytes  int64 // their sizes
}

// Stats returns a snapshot.
func (c *Cache) Stats() Stats {
	s := Stats{
		ChunkHits: c.fetch.hits.Load(), ChunkMisses: c.fetch.misses.Load(), ChunkCollapsed: c.fetch.collapsed.Load(),
		ChunkCorrupt: c.chunk.corrupt.Load(), ChunkDiskErrors: c.chunk.failed.Load(),
		StagedFiles: c.stage.used.Load(),
	}
	c.meta.mu.Lock()
	m := c.meta.stats
	s.Hits, s.NegativeHits, s.Misses, s.Collapsed = m.hits, m.negatives, m.misses, m.collapsed
	s.ListHits, s.ListMisses = m.listHits, m.listMisses
	s.Entries, s.Evictions = c.meta.lru.total, c.meta.lru.evictions
	c.meta.mu.Unlock()

	c.chunk.mu.Lock()
	s.ChunkEvictions, s.ChunkBytes = c.chunk.disk.evictions(), c.chunk.disk.total()
	c.chunk.mu.Unlock()
	c.fetch.mu.Lock()
	s.ChunkMemory = c.fetch.memory.total
	c.fetch.mu.Unlock()

	for _, in := range c.inodes() {
		in.t.mu.Lock()
		s.OpenFiles += int64(in.handles)
		in.t.mu.Unlock()
		in.mu.Lock()
		if in.dirtyLocked() {
			s.DirtyFiles++
			s.DirtyBytes += in.entry.Size
		}
		in.mu.Unlock()
	}
	return s
}
