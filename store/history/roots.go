package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store/refs"
)

// deadAfter is the age of a mark from which on its commit is taken for dead, and
// commitWithin how long a commit may take: less, so that nobody is taken for
// dead who is not.
const (
	deadAfter    = 24 * time.Hour
	commitWithin = 20 * time.Hour
)

// roots are the commits that refs, tags and logs name, at one moment.
type roots struct {
	ids     []string
	busy    []string       // branches that somebody commits to
	expired []backend.Info // entries of logs, from the oldest of each
}

// rootReader reads roots again and again, and each record once.
type rootReader struct {
	r    *Repo
	keep time.Duration // of log entries
	cut  bool          // entries of logs may be deleted

	mu    sync.Mutex
	known map[string]record // by key and ETag
}

// record is what matters of a ref, a tag or an entry of a log.
type record struct {
	ids        []string
	committing string
	deleted    bool // which names nothing
}

// logged is an entry of a log.
type logged struct {
	backend.Info
	generation uint64
	record     record
}

// read returns the roots as they are now.
func (rr *rootReader) read(ctx context.Context) (*roots, error) {
	found := &roots{}
	// Tags and refs before logs: what advances meanwhile is in the log first.
	for _, dir := range []string{refs.TagDir, refs.Dir} {
		var infos []backend.Info
		for info, err := range backend.ListRecursive(ctx, rr.r.raw, dir) {
			if err != nil {
				return nil, err
			}
			infos = append(infos, info)
		}
		records, err := rr.records(ctx, infos)
		if err != nil {
			return nil, err
		}
		for _, rec := range records {
			found.ids = append(found.ids, rec.ids...)
		}
	}
	now, logs, err := rr.logs(ctx)
	if err != nil {
		return nil, err
	}
	for branch, log := range logs {
		if err := rr.log(ctx, found, branch, log, now); err != nil {
			return nil, err
		}
	}
	slices.Sort(found.ids)
	found.ids = slices.Compact(found.ids)
	return found, nil
}

// logs lists all logs, and says what time it is for the store.
func (rr *rootReader) logs(ctx context.Context) (now time.Time, logs map[string][]logged, err error) {
	logs = map[string][]logged{}
	now, err = rr.r.listed(ctx, refs.LogDir, func(info backend.Info) {
		branch, name, _ := strings.Cut(strings.TrimPrefix(info.Key, refs.LogDir), "/")
		digits, ok := strings.CutSuffix(name, ".json")
		generation, err := strconv.ParseUint(digits, 10, 64)
		if ok && err == nil && refs.CheckName(branch) == nil {
			logs[branch] = append(logs[branch], logged{Info: info, generation: generation})
		}
	})
	return now, logs, err
}

// log adds what one log names.
func (rr *rootReader) log(ctx context.Context, found *roots, branch string, log []logged, now time.Time) error {
	// The entry that was current when the retention begins, and all after it.
	from := 0
	for i, e := range log {
		if !e.ModTime.After(now.Add(-rr.keep)) {
			from = i
		}
	}
	if !rr.cut {
		from = 0
	}
	for _, e := range log[:from] {
		if e.generation > 1 {
			found.expired = append(found.expired, e.Info)
		}
	}
	kept := log[from:]
	first := from == 1 && log[1].generation == 2 // which whoever reads the log meets
	if first {
		kept = log
	}
	infos := make([]backend.Info, len(kept))
	for i, e := range kept {
		infos[i] = e.Info
	}
	records, err := rr.records(ctx, infos)
	if err != nil {
		return err
	}
	if first && records[1].deleted {
		kept, records = kept[1:], records[1:] // when the retention began, there was no branch
	}
	for i := range kept {
		found.ids = append(found.ids, records[i].ids...)
		kept[i].record = records[i]
	}
	for token := range strings.FieldsSeq(records[len(records)-1].committing) {
		if since(kept, token).After(now.Add(-deadAfter)) {
			found.busy = append(found.busy, branch)
			break
		}
	}
	return nil
}

// since is the age of the oldest entry from which on all have the token.
func since(log []logged, token string) time.Time {
	var t time.Time
	for _, e := range slices.Backward(log) {
		if !slices.Contains(strings.Fields(e.record.committing), token) {
			break
		}
		t = e.ModTime
	}
	return t
}

// records reads what is not known yet, in the order of the infos.
func (rr *rootReader) records(ctx context.Context, infos []backend.Info) ([]record, error) {
	records := make([]record, len(infos))
	err := backend.Parallel(ctx, atOnce, indexes(len(infos)), func(ctx context.Context, i int) error {
		at := infos[i].Key + "\x00" + infos[i].ETag
		rr.mu.Lock()
		rec, ok := rr.known[at]
		rr.mu.Unlock()
		if !ok {
			var err error
			if rec, err = rr.record(ctx, infos[i].Key); err != nil {
				return err
			}
		}
		records[i] = rec
		rr.mu.Lock()
		defer rr.mu.Unlock()
		rr.known[at] = rec
		return nil
	})
	return records, err
}

func (rr *rootReader) record(ctx context.Context, key string) (record, error) {
	data, _, err := backend.ReadAll(ctx, rr.r.raw, key, maxRecord)
	if errors.Is(err, backend.ErrNotExist) {
		return record{}, nil // since it was listed
	}
	if err != nil {
		return record{}, err
	}
	if strings.HasPrefix(key, refs.TagDir) {
		tag, err := refs.ParseTag(data)
		if err != nil {
			return record{}, fmt.Errorf("%s: %w", key, err)
		}
		return record{ids: []string{tag.Commit}}, nil
	}
	ref, err := refs.Parse(data)
	if err != nil {
		return record{}, fmt.Errorf("%s: %w", key, err)
	}
	return record{ids: named(ref), committing: ref.Committing, deleted: ref.Deleted}, nil
}

// named are the commits that a ref names: none, once the branch is deleted.
func named(ref *refs.Ref) (ids []string) {
	for _, id := range []string{ref.Head, ref.Base} {
		if id != "" && !ref.Deleted {
			ids = append(ids, id)
		}
	}
	return ids
}

const maxRecord = 1 << 20 // bytes, of what is parsed strictly then

func indexes(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}
