package cache

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/keifs/keifs/cache/journal"
	"github.com/keifs/keifs/store"
)

// The kinds of records in the journal.
const (
	// kindFile: a file whose content is staged, and that is to be published.
	kindFile journal.Kind = 1
	// kindEnd: nothing, but that the records it replaces are no more.
	kindEnd journal.Kind = 2
	// kindRemoval: a name that was removed here, and that the bucket may have.
	kindRemoval journal.Kind = 3
	// kindRename: the rename of a directory, which may be half done.
	kindRename journal.Kind = 4
	// kindUpload: an upload that was begun in the bucket, for a file that is
	// not in it yet.
	kindUpload journal.Kind = 5
)

// fileRecord is the data of kindFile. What Linux takes as names are bytes, and
// need not be text.
type fileRecord struct {
	Branch []byte        `json:"branch"`
	Path   []byte        `json:"path"`
	Staged string        `json:"staged"` // name of the file in staging, which knows the size
	Base   string        `json:"base,omitempty"`
	Since  time.Time     `json:"since"`
	Tried  []tried       `json:"tried,omitempty"`
	Attr   store.Attr    `json:"attr"` // without extended attributes
	Xattrs []xattrRecord `json:"xattrs,omitempty"`
}

// tried is a publication that failed, or is under way: the bucket may have it.
type tried struct {
	Size  int64     `json:"size"`
	Ctime time.Time `json:"ctime"`
}

type xattrRecord struct {
	Name  []byte `json:"name"`
	Value []byte `json:"value"`
}

// acknowledge writes into the journal that the file, which is staged, is to be
// published as it is now, and sees to it that it will be. From then on it
// outlives this process. False where the writer has to wait for the bucket:
// nothing is staged, there is no room, or the journal fails.
func (in *inode) acknowledge(ctx context.Context) (acknowledged bool, err error) {
	c := in.t.c
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.idleLocked(ctx); err != nil {
		return false, err
	}
	switch {
	case !in.dirtyLocked():
		return true, in.stale
	case !in.content || !in.wholeLocked() || in.record == 0 && c.promised.Load()+in.entry.Size > c.opts.Pending:
		return false, nil
	case !in.promised:
		if err := in.promiseLocked(in.where, 0); err != nil {
			c.log.Error("the journal does not take what was written; it goes to the bucket at once", "error", err)
			return false, nil
		}
	}
	c.uploads.add(in, quiet)
	return true, nil
}

// promiseLocked writes the record of the file as it is, at the path that it
// has then, in the place of its last one and of another one. The lock is not
// held meanwhile, but nobody changes the file.
func (in *inode) promiseLocked(where func() store.Path, other journal.ID) error {
	c := in.t.c
	doneLocked := in.busyLocked()
	r := fileRecord{Branch: []byte(in.t.Name()), Staged: in.file.name(), Since: in.since}
	for _, e := range in.tried {
		r.Tried = append(r.Tried, tried{e.Size, e.Ctime})
	}
	if in.stream != nil { // which has begun the object with another time
		r.Tried = append(r.Tried, tried{in.entry.Size, in.stream.attr.Ctime})
	}
	e, file, size := in.entry, in.file, in.entry.Size
	replaces := []journal.ID{in.record, other}
	in.mu.Unlock()
	c.stage.mustSync(file)
	at := where()
	id, err := c.append(kindFile, r.encode(at, e), replaces...)
	in.mu.Lock()
	doneLocked()
	if err != nil {
		return err
	}
	c.promised.Add(size - in.reserved)
	in.record, in.recordAt, in.recordOf, in.promised, in.reserved = id, at, e.Version, true, size
	return nil
}

// renew writes the record anew if it has a name or a version from before a
// rename, as that of what was written while the rename was under way has. The
// path is claimed.
func (in *inode) renew(ctx context.Context) error {
	now := in.where()
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := in.idleLocked(ctx); err != nil || in.record == 0 || in.recordAt == now && in.recordOf == in.entry.Version {
		return err
	}
	err := in.promiseLocked(func() store.Path { return now }, 0)
	if err != nil {
		in.promised = false
		in.t.c.log.Error("the journal does not take the new name of a file that is not in the bucket yet", "path", now.String(), "error", err)
	}
	return err
}

// renewBelow is renew for what has its name at p or below it.
func (t *tree) renewBelow(ctx context.Context, p store.Path) (err error) {
	for _, in := range t.below(p) {
		err = errors.Join(err, in.renew(ctx))
	}
	return err
}

// fulfilledLocked ends the record: the bucket has the file, or never will.
func (in *inode) fulfilledLocked() {
	if in.record != 0 {
		in.t.c.journal.Done(in.record)
	}
	in.forgetPromiseLocked()
}

// forgetPromiseLocked is for a record that another one has replaced.
func (in *inode) forgetPromiseLocked() {
	in.t.c.promised.Add(-in.reserved)
	in.record, in.promised, in.reserved = 0, false, 0
}

// recorded says whether the journal has promised something of the file.
func (in *inode) recorded() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.record != 0
}

// append adds a record, and makes room where the disk is full.
func (c *Cache) append(kind journal.Kind, data []byte, replaces ...journal.ID) (id journal.ID, err error) {
	err = c.stage.withRoom(int64(len(data)), func() (err error) {
		id, err = c.journal.Append(kind, data, replaces...)
		return err
	})
	return id, err
}

// noted returns when the journal knows of everything that is in the bucket, so
// that no crash brings back what is about to be taken away there.
func (c *Cache) noted() error { return c.stage.withRoom(0, c.journal.Flush) }

// endedForCertain returns when the ends of all records that are fulfilled are
// durable: the journal syncs records, and an end with the next one.
func (c *Cache) endedForCertain(ctx context.Context) error {
	if err := c.noted(); err != nil {
		return err
	}
	end, err := c.append(kindEnd, nil)
	if err != nil {
		return err
	}
	c.journal.Done(end)
	return diskError(c.journal.Sync(ctx))
}

// withdraw ends records before it returns.
func (c *Cache) withdraw(ids ...journal.ID) error {
	ids = slices.DeleteFunc(ids, func(id journal.ID) bool { return id == 0 })
	if len(ids) == 0 {
		return nil
	}
	end, err := c.append(kindEnd, nil, ids...)
	if err == nil {
		c.journal.Done(end)
	}
	return err
}

// encode is the record of the file as e, at a path.
func (r fileRecord) encode(p store.Path, e store.Entry) []byte {
	r.Path, r.Base, r.Attr = []byte(p.String()), e.Version, e.Attr
	r.Attr.Xattrs = nil
	for name, value := range e.Xattrs {
		r.Xattrs = append(r.Xattrs, xattrRecord{[]byte(name), value})
	}
	data, err := json.Marshal(r)
	if err != nil { // a time that JSON does not know: the store would not keep it either
		r.Attr.Mtime, r.Attr.Atime, r.Attr.Ctime, r.Tried = r.Since, time.Time{}, r.Since, nil
		data, _ = json.Marshal(r)
	}
	return data
}

func decodeFile(data []byte) (r fileRecord, p store.Path, e store.Entry, err error) {
	if err := json.Unmarshal(data, &r); err != nil {
		return r, p, e, err
	}
	if p, err = store.ParsePath(string(r.Path)); err != nil {
		return r, p, e, err
	}
	e = store.Entry{Attr: r.Attr, Version: r.Base}
	for _, x := range r.Xattrs {
		if e.Xattrs == nil {
			e.Xattrs = map[string][]byte{}
		}
		e.Xattrs[string(x.Name)] = x.Value
	}
	return r, p, e, nil
}

// replay takes up what the owner of this folder before had acknowledged, and
// deletes what it had not. A volume that changes nothing leaves all as it is.
func (c *Cache) replay() error {
	if c.store.ReadOnly() {
		if n := c.journal.Stats().Records; n > 0 {
			c.log.Warn("files that are not in the bucket yet wait for a mount that may write", "records", n)
		}
		return nil
	}
	files := 0
	err := c.journal.Replay(func(r journal.Record) error {
		switch r.Kind {
		case kindEnd:
			c.journal.Done(r.ID)
			return nil
		case kindFile:
			files++
			return c.replayFile(r)
		case kindRemoval:
			return c.removals.replay(r)
		case kindRename:
			return c.renames.replay(r)
		case kindUpload:
			return c.replayUpload(r)
		}
		return fmt.Errorf("a record of kind %d: %w", r.Kind, journal.ErrFormat)
	})
	if err != nil {
		return err
	}
	if err := c.renames.carry(); err != nil {
		return err
	}
	if files > 0 {
		c.log.Info("going on with files that the mount before had not put into the bucket", "files", files)
	}
	return c.stage.clean()
}

func (c *Cache) replayFile(r journal.Record) error {
	rec, path, e, err := decodeFile(r.Data)
	if err != nil {
		return fmt.Errorf("record %d: %w (%w)", r.ID, journal.ErrFormat, err)
	}
	s, err := c.store.Branch(string(rec.Branch))
	if err != nil {
		return fmt.Errorf("record %d: %w", r.ID, err)
	}
	log := c.log.With("branch", s.CurrentBranch(), "path", path.String())
	file, size, err := c.stage.adopt(rec.Staged)
	if errors.Is(err, errNotStaged) { // the record that it is done came too late
		log.Warn("a file that was about to be uploaded is not in the cache any more: the bucket has it, unless somebody deleted it there")
		c.journal.Done(r.ID)
		return nil
	}
	if err != nil {
		return err
	}
	t := c.tree(s)
	e.Size = size
	t.mu.Lock()
	in := t.addLocked(path, e)
	t.mu.Unlock()
	in.mu.Lock()
	in.file, in.content, in.attrs, in.since = file, true, true, rec.Since
	in.record, in.recordAt, in.recordOf, in.promised, in.reserved = r.ID, path, e.Version, true, size
	in.tried = []store.Entry{e} // it may have reached the bucket
	for _, t := range rec.Tried {
		in.tried = append(in.tried, store.Entry{Attr: store.Attr{Ctime: t.Ctime}, Size: t.Size})
	}
	in.mu.Unlock()
	c.promised.Add(size)
	if !r.Synced {
		where, err := c.salvage(in)
		if err != nil {
			return err
		}
		log.Error("the machine went down before this file was on its disk for certain; it is not published", "kept", where)
		return t.unlink(in)
	}
	c.uploads.add(in, 0)
	return nil
}
