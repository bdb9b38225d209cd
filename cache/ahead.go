package cache

import (
	"context"
	"time"

	"github.com/keifs/keifs/store"
)

// aheadLife is for how long at most an open believes what was fetched ahead,
// however long names are believed.
const aheadLife = time.Second

// askAhead begins to ask about a file that is likely to be opened soon, by
// ask, and remembers the answer for that as well. ticket is the number of the
// question.
func (m *metadata) askAhead(ctx context.Context, branch string, p store.Path, ticket uint64, ask func(context.Context) (store.Entry, error)) {
	key := metaKey{branch, nameKind, p}
	m.ahead.begin(ctx, key, func(ctx context.Context, fresh func() bool) (store.Entry, error) {
		at := time.Now()
		e, err := ask(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		newer := m.freshLocked(key)
		if err == nil && fresh() && (newer == nil || newer.at.Before(at)) {
			m.noticeLocked(branch, p, &e)
			m.lru.add(key, &metaItem{at: at, entry: e, ticket: ticket}, 1)
			m.kept.learn(branch, p, e)
		}
		return e, err
	})
}

// takeAhead is what was fetched ahead of the next open of p, with the number
// of the question. It is good for one open, so that who opens a file again and
// again sees each change of another host at once.
func (m *metadata) takeAhead(ctx context.Context, branch string, p store.Path) (e store.Entry, ticket uint64, ok bool) {
	key := metaKey{branch, nameKind, p}
	m.ahead.join(ctx, key)
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.freshLocked(key)
	if item == nil || item.ticket == 0 || time.Since(item.at) >= aheadLife {
		return store.Entry{}, 0, false
	}
	ticket, item.ticket = item.ticket, 0
	return item.entry, ticket, true
}

// ask asks the bucket about a file that is opened to be read, whatever is
// remembered, and remembers the answer. What seems to be a small file comes
// whole.
func (m *metadata) ask(ctx context.Context, t *tree, p store.Path) (store.Entry, error) {
	m.mu.Lock()
	seen, hint, err := m.knownLocked(t.Name(), p)
	m.mu.Unlock()
	if (hint == known || hint == askFile) && err == nil && seen.IsRegular() && seen.Size <= openWhole {
		return m.question(t.store, p, func() (store.Entry, error) { return t.headWhole(ctx, p, seen) })
	}
	return m.head(ctx, t.store, p)
}
