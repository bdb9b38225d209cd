package cache

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/cache/journal"
	"github.com/keifs/keifs/store"
)

const (
	// streamPart is the size of its first parts in bytes.
	streamPart = 16 << 20
	// streamParts is how many parts a new file has before it goes into the
	// bucket while it is still being written.
	streamParts = 2
	// streamAtOnce is how many parts of one file are on the wire.
	streamAtOnce = 8
	// streamLeast is what a file gains in a second, in bytes, once it has been
	// open for streamPatience: one that grows slower is uploaded when it is
	// closed, with the time that it has then.
	streamLeast    = 8 << 20
	streamPatience = time.Minute
)

// stream sends a large new file to the bucket while it is being written: each
// part as soon as there is nothing more to come of it. The parts are read from
// the staged file, so that what is on its way takes no memory, and what was
// written again is sent again. The end is in publishClaimed, with the same
// conditions as for a file that is sent as a whole; whatever gets in the way
// before leaves it to that.
//
// The object's attributes have to be told at the beginning. So the file's times
// stand still as long as it is streamed; if somebody sets attributes
// meanwhile, the store copies the object onto itself in the end.
//
// The inode's mu guards it.
type stream struct {
	in     *inode
	file   *stagedFile
	ctx    context.Context
	cancel context.CancelFunc

	begun  chan struct{} // closed when up is there, or nothing will come of it
	up     *store.Upload // nil before, and where it failed
	path   store.Path
	base   string     // version of the file that it replaces
	attr   store.Attr // of the object
	record journal.ID

	parts   []partState
	sums    streamSums
	sending int           // parts on the wire
	ended   chan struct{} // closed and replaced when one of them has ended
	halted  bool          // no more parts before the end, since one has failed
	touched bool          // the attributes were changed since the beginning
	given   bool          // up
}

type partState uint8

const (
	unsent partState = iota // or written again since
	sending
	sent
)

// streamLocked sees to it that what is there of the file by now is sent, if it
// is one to be sent while it is written.
func (in *inode) streamLocked() {
	s := in.stream
	switch {
	case s != nil && in.slowLocked():
		in.giveUpLocked()
	case s != nil:
		s.feedLocked()
	case in.filled >= streamParts*in.t.c.opts.streamPart && !in.unstreamed && in.patch == nil && !in.removed && in.stale == nil && !in.slowLocked():
		in.beginLocked()
	}
}

func (in *inode) slowLocked() bool {
	age := time.Since(in.since)
	return age > streamPatience && float64(in.filled) < age.Seconds()*streamLeast
}

// beginLocked begins a stream.
func (in *inode) beginLocked() {
	c := in.t.c
	s := &stream{
		in: in, file: in.file, begun: make(chan struct{}), ended: make(chan struct{}),
		base: in.entry.Version, attr: in.entry.Attr, sums: newStreamSums(),
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	if c.start(func() { s.begin() }) != nil {
		s.cancel()
		return
	}
	in.stream = s
}

// begin asks the bucket for the upload, and notes it in the journal.
func (s *stream) begin() {
	defer close(s.begun)
	in, c := s.in, s.in.t.c
	path := in.where()
	up, err := in.t.store.BeginUpload(s.ctx, path, c.opts.streamPart, store.PublishOptions{Base: s.base, Attr: s.attr})
	if err == nil && up.ID() != "" {
		s.record, err = c.append(kindUpload, encodeUpload(in.t.Name(), path, up.ID()))
	}
	if err != nil {
		c.log.Debug("the file is uploaded when it is closed", "branch", in.t.Name(), "path", path.String(), "error", err)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case err == nil && !s.given:
		s.up, s.path = up, path
		s.feedLocked()
		return
	case up != nil:
		defer s.discard(up)
	}
	if in.stream == s {
		in.giveUpLocked()
	}
}

// feedLocked begins to send the parts that are complete.
func (s *stream) feedLocked() {
	if s.up == nil || s.halted {
		return
	}
	for s.sending < streamAtOnce {
		n := len(s.parts)
		r := s.up.Part(n)
		if r.End() > s.in.filled {
			return
		}
		src := s.sums.of(n, r, backend.Section(s.file.source(r.End()), r.Off, r.Len))
		if s.in.t.c.start(func() { s.sendPart(n, src) }) != nil {
			return
		}
		s.parts = append(s.parts, sending)
		s.sending++
	}
}

// sendPart sends part n while the file is being written.
func (s *stream) sendPart(n int, src backend.Source) {
	err := s.up.Send(backend.WithPriority(s.ctx, backend.Background), n, src)
	s.in.mu.Lock()
	defer s.in.mu.Unlock()
	s.sending--
	close(s.ended)
	s.ended = make(chan struct{})
	if err != nil {
		s.parts[n], s.halted = unsent, true
		return
	}
	s.parts[n] = sent
	s.feedLocked()
}

// sendingLocked says whether a part of the range is on the wire: one that is
// must not change, and is not when the result is closed.
func (s *stream) sendingLocked(r store.Range) <-chan struct{} {
	if s == nil || s.sending == 0 {
		return nil
	}
	for n, state := range s.parts {
		if p := s.up.Part(n); state == sending && p.Off < r.End() && r.Off < p.End() {
			return s.ended
		}
	}
	return nil
}

// wroteLocked notes that the range has changed, by p where that is not nil:
// what was sent of it is sent again in the end.
func (s *stream) wroteLocked(r store.Range, p []byte) {
	if s == nil || s.up == nil {
		return
	}
	if p != nil {
		s.sums.wrote(s.up, r.Off, p)
	} else {
		s.sums.drop(s.up, r)
	}
	for n := len(s.parts) - 1; n >= 0; n-- {
		p := s.up.Part(n)
		if p.End() <= r.Off {
			return
		}
		if p.Off < r.End() {
			s.parts[n] = unsent
		}
	}
}

// mostlyLocked says whether more of the file was sent than is left to send.
func (s *stream) mostlyLocked() bool {
	if s == nil || len(s.parts) == 0 {
		return false
	}
	return 2*s.up.Part(len(s.parts)-1).End() > s.in.entry.Size
}

// cutLocked notes that the file ends there, and gives up where more was sent.
func (in *inode) cutLocked(size int64) {
	if s := in.stream; s != nil && s.up != nil {
		s.sums.cut(s.up, size)
	}
	if size >= in.filled {
		return
	}
	in.filled = size
	if s := in.stream; s != nil && (s.up == nil || len(s.parts) > 0 && s.up.Part(len(s.parts)-1).End() > size) {
		in.giveUpLocked()
	}
}

// giveUpLocked leaves the file to be sent as a whole.
func (in *inode) giveUpLocked() {
	s := in.stream
	in.stream, in.unstreamed = nil, true
	s.given = true
	s.cancel()
	if !s.touched {
		in.entry.Mtime, in.entry.Ctime = in.changed, in.changed
	}
	if s.up != nil {
		s.discard(s.up)
	}
}

// discard gives the upload up in the bucket when no part is on its way any
// more, or leaves that to the next mount.
func (s *stream) discard(up *store.Upload) {
	c := s.in.t.c
	_ = c.start(func() {
		s.in.mu.Lock()
		for s.sending > 0 {
			ended := s.ended
			s.in.mu.Unlock()
			<-ended
			s.in.mu.Lock()
		}
		s.in.mu.Unlock()
		up.Discard(c.ctx)
		s.forget(up)
	})
}

// forget ends the record of the upload, unless the next mount has to discard
// what is left of it.
func (s *stream) forget(up *store.Upload) {
	if s.record != 0 && !up.Left() {
		s.in.t.c.journal.Done(s.record)
	}
}

// finish publishes the file, with what is still to be sent of it. Nobody
// changes the file meanwhile. The stream ends, whatever the result.
func (s *stream) finish(ctx context.Context, path store.Path, source backend.Source, opts store.PublishOptions) (store.Entry, error) {
	in := s.in
	if ok, err := s.ready(ctx, path, opts.Base); !ok || err != nil {
		if err == nil {
			return in.t.store.Publish(ctx, path, source, opts)
		}
		return store.Entry{}, err
	}
	defer s.cancel()
	var missing []int
	for n := 0; s.up.Part(n).Off < source.Size(); n++ {
		if n >= len(s.parts) || s.parts[n] != sent {
			missing = append(missing, n)
		}
	}
	err := backend.Parallel(ctx, streamAtOnce, missing, func(ctx context.Context, n int) error {
		r := s.up.Part(n)
		r.Len = min(r.Len, source.Size()-r.Off)
		return s.up.Send(ctx, n, s.sums.of(n, r, backend.Section(source, r.Off, r.Len)))
	})
	if err != nil {
		s.discard(s.up)
		in.mu.Lock()
		in.unstreamed = true
		in.mu.Unlock()
		return store.Entry{}, err
	}
	e, err := s.up.Finish(ctx, source)
	s.forget(s.up)
	in.mu.Lock()
	if err != nil { // its answer may be lost
		in.unstreamed = true
		in.tried = append(in.tried, store.Entry{Attr: s.attr, Size: source.Size()})
	} else {
		in.entry.Version, in.base, in.content = e.Version, e, false
	}
	in.mu.Unlock()
	if err != nil || !s.touched {
		return e, err
	}
	opts.Base = e.Version
	return in.publishAttrs(ctx, path, e, opts)
}

// ready waits for what is under way, and says whether the stream can be
// finished as that path and version. Nothing is fed meanwhile.
func (s *stream) ready(ctx context.Context, path store.Path, base string) (bool, error) {
	in := s.in
	in.mu.Lock()
	defer in.mu.Unlock()
	s.halted = true
	for {
		wait := s.ended
		switch {
		case !s.begunLocked():
			wait = s.begun
		case s.up == nil || s.given:
			return false, nil
		case s.sending == 0 && (s.path != path || s.base != base):
			s.discard(s.up)
			return false, nil
		case s.sending == 0:
			return true, nil
		}
		in.mu.Unlock()
		var err error
		select {
		case <-wait:
		case <-ctx.Done():
			err = ctx.Err()
		}
		in.mu.Lock()
		if err != nil {
			s.given = true
			s.cancel()
			if s.up != nil {
				s.discard(s.up)
			}
			return false, err
		}
	}
}

func (s *stream) begunLocked() bool {
	select {
	case <-s.begun:
		return true
	default:
		return false
	}
}

// uploadRecord is an upload of a file that is still being written.
type uploadRecord struct {
	Branch []byte `json:"branch"`
	Path   []byte `json:"path"`
	ID     string `json:"id"`
}

func encodeUpload(branch string, p store.Path, id string) []byte {
	data, _ := json.Marshal(uploadRecord{[]byte(branch), []byte(p.String()), id})
	return data
}

// replayUpload gives up in the bucket what a mount before had begun to send:
// it was not acknowledged, or is staged as a whole.
func (c *Cache) replayUpload(r journal.Record) error {
	var rec uploadRecord
	if err := json.Unmarshal(r.Data, &rec); err != nil {
		return fmt.Errorf("record %d: %w (%w)", r.ID, journal.ErrFormat, err)
	}
	path, err := store.ParsePath(string(rec.Path))
	if err != nil {
		return fmt.Errorf("record %d: %w", r.ID, err)
	}
	s, err := c.store.Branch(string(rec.Branch))
	if err != nil {
		return fmt.Errorf("record %d: %w", r.ID, err)
	}
	return c.start(func() {
		if err := s.DiscardUpload(c.ctx, path, rec.ID); err != nil {
			c.log.Warn("an unfinished upload is left in the store until the next mount", "branch", s.CurrentBranch(), "path", path.String(), "error", err)
			return
		}
		c.journal.Done(r.ID)
	})
}
