package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/store"
)

// mountStatus is what status shows of one mount.
type mountStatus struct {
	Dir      string          `json:"dir"`
	Store    string          `json:"store"`
	State    string          `json:"state"` // mounted, unmounting, dead, or unknown (no control socket)
	PID      int             `json:"pid,omitempty"`
	Version  string          `json:"version,omitempty"`
	Since    time.Time       `json:"since,omitzero"`
	ReadOnly bool            `json:"read_only"`
	Log      string          `json:"log,omitempty"`
	CacheDir string          `json:"cache_dir,omitempty"`
	Branches []string        `json:"branches,omitempty"`
	Pending  []pendingStatus `json:"pending"`
	Errors   []string        `json:"errors,omitempty"` // what this status could not find out

	// Options are those by which the mount reaches its store, for commands
	// that do it by themselves. None is a secret.
	Options map[string]string `json:"options,omitempty"`

	stackStatus
}

// pendingStatus is a file that is not in the bucket yet.
type pendingStatus struct {
	Branch string    `json:"branch"`
	Path   string    `json:"path"`
	State  string    `json:"state"`
	Bytes  int64     `json:"bytes"`
	Names  int       `json:"names,omitempty"` // of removing and renaming
	Of     int       `json:"of,omitempty"`
	Since  time.Time `json:"since"`
	Error  string    `json:"error,omitempty"`
}

func statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [DIR]",
		Short: "Show this user's mounts: what is pending, cached, in conflict",
		Args:  between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			mounts, err := allMounts(cmd.Context(), args)
			if err != nil {
				return err
			}
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(map[string]any{"mounts": mounts})
			}
			if len(mounts) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing is mounted")
			}
			for i, st := range mounts {
				if i > 0 {
					fmt.Fprintln(cmd.OutOrStdout())
				}
				st.print(cmd.OutOrStdout())
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// allMounts is the status of this user's mounts, or of the one that contains
// args[0]: those of the mount table, and those that are ending.
func allMounts(ctx context.Context, args []string) ([]mountStatus, error) {
	mounts := []mountStatus{}
	if len(args) > 0 {
		dir, err := existingDir(args[0])
		if err != nil {
			return nil, err
		}
		e, ok, err := mountContaining(dir)
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fail(exitDir, "%s is not in a mount of keifs", args[0])
		}
		return append(mounts, statusOf(ctx, e)), nil
	}
	table, err := mountTable()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	ours := slices.DeleteFunc(table, func(e tableEntry) bool {
		if e.kind != fsType || e.uid != os.Geteuid() || seen[e.dir] {
			return true
		}
		seen[e.dir] = true
		return false
	})
	// Side by side: one that hangs does not keep the others from answering.
	mounts = make([]mountStatus, len(ours))
	var asked sync.WaitGroup
	for i, e := range ours {
		asked.Go(func() { mounts[i] = statusOf(ctx, e) })
	}
	asked.Wait()
	for _, c := range sockets() {
		// One that is still mounting does not answer yet.
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		if st, err := c.status(ctx, true); err == nil && !seen[st.Dir] {
			mounts = append(mounts, st)
		}
		cancel()
	}
	slices.SortFunc(mounts, func(a, b mountStatus) int { return cmp.Compare(a.Dir, b.Dir) })
	return mounts, nil
}

// statusPatience is how long a daemon has to answer. It takes up to 5 s for the
// branches, which it may have to ask its store for.
const statusPatience = 8 * time.Second

func statusOf(ctx context.Context, e tableEntry) mountStatus {
	st := mountStatus{Dir: e.dir, Store: e.source, State: "unknown", Pending: []pendingStatus{}}
	c, ok := findControl(e.dir, e.uid)
	if !ok {
		if dead(e.dir) {
			st.State = "dead"
		}
		return st
	}
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	live, err := c.status(ctx, true)
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("its daemon does not answer")
	}
	if err != nil {
		st.Errors = []string{oneLine(err)}
		return st
	}
	return live
}

// status is the session's own part of mountStatus.
func (s *session) status(ctx context.Context, branches bool) mountStatus {
	st := mountStatus{
		Dir: s.dir, Store: s.name, State: "mounted", PID: os.Getpid(), Version: version(), Since: s.started,
		ReadOnly: s.readOnly, Log: s.logPath, CacheDir: s.cacheDir, Pending: []pendingStatus{},
		Options: s.reach(), stackStatus: s.stack.status(),
	}
	select {
	case <-s.gone:
		st.State = "unmounting"
	default:
	}
	for _, p := range s.vol.Pending() {
		st.Pending = append(st.Pending, pendingStatus{p.Branch, p.Path, p.State, p.Bytes, p.Names, p.Of, p.Since, p.Err})
	}
	if branches {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		var err error
		if st.Branches, err = branchNames(s.vol.Root().List(ctx, store.Path{})); err != nil {
			st.Errors = append(st.Errors, "branches: "+oneLine(err))
		}
	}
	return st
}

func (st mountStatus) print(w io.Writer) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	state := st.State
	if st.ReadOnly {
		state += ", read-only"
	}
	fmt.Fprintf(w, "%s\n", st.Dir)
	line("store", "%s", st.Store)
	line("state", "%s", state)
	for _, e := range st.Errors {
		line("error", "%s", e)
	}
	if st.PID == 0 {
		return
	}
	line("daemon", "process %d, keifs %s, since %s", st.PID, st.Version, st.Since.Format(time.DateTime))
	line("log", "%s", cmp.Or(st.Log, "standard error"))
	line("branches", "%s", cmp.Or(strings.Join(st.Branches, " "), "none"))
	line("pending", "%s", st.pending())
	for _, p := range st.Pending {
		line("", "%s", p)
	}
	line("conflicts", "%d", st.Conflicts)
	if n := st.Unnameable.Count; n > 0 {
		line("not shown", "%d keys that no file can have, such as %q", n, st.Unnameable.Examples)
	}
	if c := st.Cache; c != nil {
		line("cache", "%s in %s; names %s, listings %s, content %s", formatSize(c.ChunkBytes), st.CacheDir,
			rate(c.Hits, c.Misses), rate(c.ListHits, c.ListMisses), rate(c.ChunkHits, c.ChunkMisses))
	} else {
		line("cache", "off")
	}
	s := st.Scheduler
	line("requests", "%d on the wire of at most %d, %d waiting", s.InFlight, s.Slots, s.Waiting)
}

// rate is what share of the questions the cache answered.
func rate(hits, misses int64) string {
	if hits+misses == 0 {
		return "unasked"
	}
	return fmt.Sprintf("%d%% of %d", 100*hits/(hits+misses), hits+misses)
}

// pending is how much is not in the bucket yet.
func (st mountStatus) pending() string {
	n, files := 0, "files"
	for _, p := range st.Pending {
		if p.Names+p.Of == 0 {
			n++
		}
	}
	if n == 1 {
		files = "file"
	}
	return fmt.Sprintf("%d %s (%s)", n, files, formatSize(st.pendingBytes()))
}

func (st mountStatus) pendingBytes() (bytes int64) {
	for _, p := range st.Pending {
		bytes += p.Bytes
	}
	return bytes
}

func (p pendingStatus) String() string {
	since := "since " + p.Since.Format(time.TimeOnly)
	switch {
	case p.Of > 0:
		return fmt.Sprintf("%s/%s: %s, %d of %d %s %s", p.Branch, p.Path, p.State, p.Names, p.Of, since, p.Error)
	case p.Names > 0:
		return fmt.Sprintf("%s: %s %d names %s %s", p.Branch, p.State, p.Names, since, p.Error)
	}
	return fmt.Sprintf("%s/%s: %s %s %s", p.Branch, p.Path, p.State, since, p.Error)
}
