package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/keifs/keifs/cache"
	"github.com/keifs/keifs/store"
)

func warmCommand() *cobra.Command {
	var data bool
	cmd := &cobra.Command{
		Use:   "warm [PATH]",
		Short: "Learn names and attributes, or fetch contents, ahead",
		Long: `Have the mount list PATH, a directory with all below it, by as many keys a request
as the store gives, and ask for the attributes that no listing tells. find, ls -lR
and the like then need no request until --metadata-ttl is over, which counts from
the end of it. PATH is the current directory by default. With --data the contents
of the files are fetched as well, as far as the cache has room for them.`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, path, err := mountOf(append(args, ".")[0])
			if err != nil {
				return err
			}
			show, done := onTerminal(cmd.ErrOrStderr())
			last, err := c.warm(cmd.Context(), path, data, func(r warmReport) {
				if show != nil {
					show(r.String())
				}
			})
			done()
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), last)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&data, "data", false, "fetch contents, too")
	return cmd
}

// warmReport is a line of the answer to /warm; the last one is Done.
type warmReport struct {
	report
	Done  bool  `json:"done"`
	Names int64 `json:"names"`
	Dirs  int64 `json:"dirs"`
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

func (r warmReport) String() string {
	text := fmt.Sprintf("%d names in %d directories", r.Names, r.Dirs)
	if r.Files > 0 {
		text += fmt.Sprintf(", %d files asked for", r.Files)
	}
	if r.Bytes > 0 {
		text += ", " + formatSize(r.Bytes) + " of content"
	}
	return text
}

// warm is what the daemon does, with a line of progress now and then.
func (s *session) warm(w http.ResponseWriter, r *http.Request) {
	var progress cache.Warming
	done := make(chan error, 1)
	go func() { done <- s.warmPath(r.Context(), r.FormValue("path"), r.FormValue("data") != "", &progress) }()
	w.Header().Set("Content-Type", "application/json")
	out := json.NewEncoder(w)
	line := func(rep report, last bool) {
		_ = out.Encode(warmReport{rep, last, progress.Names(), progress.Dirs(), progress.Files(), progress.Bytes()})
		_ = http.NewResponseController(w).Flush() // who asked may have gone
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			line(report{Dir: s.dir}, false)
		case err := <-done:
			line(reportOf(s.dir, err), true)
			return
		}
	}
}

func (s *session) warmPath(ctx context.Context, path string, data bool, progress *cache.Warming) error {
	if s.cache == nil {
		return usageError("with --cache off there is nothing to warm")
	}
	branch, p, err := store.SplitPath(path)
	if err != nil {
		return err
	}
	return s.cache.Warm(ctx, branch, p, data, progress)
}

// warm has the daemon warm a path of its mount; show is called now and then.
func (c controlClient) warm(ctx context.Context, path string, data bool, show func(warmReport)) (last warmReport, err error) {
	what := "http://keifs/warm?path=" + query(path)
	if data {
		what += "&data=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, what, nil)
	if err != nil {
		return last, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return last, err
	}
	defer resp.Body.Close()
	for in := json.NewDecoder(resp.Body); !last.Done; {
		last = warmReport{}
		if err := in.Decode(&last); err != nil {
			return last, err
		}
		show(last)
	}
	return last, last.err()
}
