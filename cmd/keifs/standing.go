package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/keifs/keifs/backend"
	"github.com/keifs/keifs/store"
	"github.com/keifs/keifs/store/history"
)

// standing is where a branch stands, for people and programs.
type standing struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Head    string `json:"head,omitempty"`   // id of the last commit
	Origin  string `json:"origin,omitempty"` // branch that it was made of
	Ahead   int    `json:"ahead"`            // of Origin
	Behind  int    `json:"behind"`
	Error   string `json:"error,omitempty"` // why it cannot be told
}

// standings are those of branches with history, by name.
type standings map[string]standing

func standingsOf(ctx context.Context, st *store.Store, back backend.Backend, names []string) (standings, error) {
	found, err := history.New(back, st, history.Options{}).Standings(ctx, names)
	if err != nil {
		return nil, err
	}
	all := standings{}
	for name, s := range found {
		one := standing{Name: name, Head: s.Head, Origin: s.Origin, Ahead: s.Ahead, Behind: s.Behind}
		if s.Err != nil {
			one.Error = oneLine(s.Err)
		}
		all[name] = one
	}
	return all, nil
}

// standings are those of all branches of the mount.
func (s *session) standings(ctx context.Context) (standings, error) {
	names, err := branchNames(s.store.RootView().List(ctx, store.Path{}))
	if err != nil {
		return nil, err
	}
	return standingsOf(ctx, s.store, s.back, names)
}

// standingsAnswer is what the control socket answers.
type standingsAnswer struct {
	report
	Branches standings `json:"branches"`
}

func (c controlClient) standings(ctx context.Context) (standings, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://keifs/branches", nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var got standingsAnswer
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
		return nil, err
	}
	return got.Branches, got.err()
}

// print lists the branches and where they stand.
func (b branches) print(ctx context.Context, w io.Writer, asJSON bool) error {
	names, err := b.list(ctx)
	if err != nil {
		return err
	}
	at, err := b.stand(ctx, names) // without it, the names are shown at least
	all := make([]standing, len(names))
	width := 0
	for i, name := range names {
		all[i] = at[name]
		all[i].Name, all[i].Current = name, name == b.current
		width = max(width, len(name))
	}
	if asJSON {
		out := json.NewEncoder(w)
		out.SetIndent("", "  ")
		if encodeErr := out.Encode(map[string]any{"branches": all}); encodeErr != nil {
			return encodeErr
		}
		return err
	}
	for _, s := range all {
		s.print(w, width)
	}
	return err
}

func (s standing) print(w io.Writer, width int) {
	mark := " "
	if s.Current {
		mark = "*"
	}
	switch {
	case s.Error != "":
		fmt.Fprintf(w, "%s %-*s  %s\n", mark, width, s.Name, s.Error)
	case s.Origin != "":
		fmt.Fprintf(w, "%s %-*s  %s  %d ahead, %d behind %s\n", mark, width, s.Name, short(s.Head), s.Ahead, s.Behind, s.Origin)
	case s.Head != "":
		fmt.Fprintf(w, "%s %-*s  %s\n", mark, width, s.Name, short(s.Head))
	default:
		fmt.Fprintln(w, mark, s.Name)
	}
}
