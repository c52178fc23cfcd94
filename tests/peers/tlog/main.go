// Reads a registry's log with Go's own checker (golang.org/x/mod/sumdb/tlog and note), which
// nobody here wrote: the checkpoint's signature, its root from the tiles and once more from the
// entries alone, the inclusion of entries, and the consistency of earlier sizes with it.
//
// Usage: main <url of the log> <key of the log> [<earlier size>:<its root in base64> ...]
package main

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const height = 8

// Up to this size every entry's inclusion is proven by itself; in larger logs that of the first
// and the last of each bundle. The root over all entries is computed at every size.
const provenOneByOne = 1024

type site struct {
	url string
	// Tiles that the checker has found to belong to the checkpoint's tree.
	saved map[string][]byte
}

func (s site) get(path string) ([]byte, error) {
	response, err := http.Get(s.url + "/" + path)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: status %d", path, response.StatusCode)
	}
	return body, err
}

func (s site) Height() int { return height }

// Go's paths name the height of tiles, those of tlog-tiles do not.
func path(tile tlog.Tile) string {
	return strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/", height), "tile/", 1)
}

func (s site) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, known := s.saved[path(tile)]
		if !known {
			var err error
			if data, err = s.get(path(tile)); err != nil {
				return nil, err
			}
		}
		all = append(all, data)
	}
	return all, nil
}

func (s site) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	for i, tile := range tiles {
		s.saved[path(tile)] = data[i]
	}
}

// The entries of a bundle, each behind its length in two bytes.
func (s site) bundle(index, size int64) ([][]byte, error) {
	tile := tlog.Tile{H: height, L: 0, N: index, W: 1 << height}
	if left := size - index<<height; left < 1<<height {
		tile.W = int(left)
	}
	path := strings.Replace(tile.Path(), fmt.Sprintf("tile/%d/0/", height), "tile/entries/", 1)
	rest, err := s.get(path)
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(rest) > 0 {
		if len(rest) < 2 || len(rest)-2 < int(binary.BigEndian.Uint16(rest)) {
			return nil, fmt.Errorf("%s ends within an entry", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(rest))
		entries, rest = append(entries, rest[2:end]), rest[end:]
	}
	if len(entries) != tile.W {
		return nil, fmt.Errorf("%s has %d entries, not %d", path, len(entries), tile.W)
	}
	return entries, nil
}

func parse(size, root string) (int64, tlog.Hash, error) {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	bytes, err := base64.StdEncoding.DecodeString(root)
	if err != nil || len(bytes) != tlog.HashSize {
		return 0, tlog.Hash{}, fmt.Errorf("%q is no hash", root)
	}
	var hash tlog.Hash
	copy(hash[:], bytes)
	return n, hash, nil
}

// The log's size and root, as its key has signed them.
func (s site) checkpoint(verifier note.Verifier) (int64, tlog.Hash, error) {
	signed, err := s.get("checkpoint")
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) < 4 || lines[0] != verifier.Name() {
		return 0, tlog.Hash{}, fmt.Errorf("the checkpoint is not of %s: %q", verifier.Name(), opened.Text)
	}
	return parse(lines[1], lines[2])
}

// The tree of the entries alone, without a tile.
type replay []tlog.Hash

func (r *replay) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var hashes []tlog.Hash
	for _, index := range indexes {
		hashes = append(hashes, (*r)[index])
	}
	return hashes, nil
}

// Answers how many entries were proven one by one, and the bytes of all of them.
func (s site) entries(size int64, root tlog.Hash, hashes tlog.HashReader) (int, int, error) {
	var tree replay
	proven, bytes := 0, 0
	for index := int64(0); index<<height < size; index++ {
		entries, err := s.bundle(index, size)
		if err != nil {
			return 0, 0, err
		}
		for offset, entry := range entries {
			bytes += len(entry)
			position, leaf := index<<height+int64(offset), tlog.RecordHash(entry)
			more, err := tlog.StoredHashesForRecordHash(position, leaf, &tree)
			if err != nil {
				return 0, 0, err
			}
			tree = append(tree, more...)
			if size > provenOneByOne && offset != 0 && offset != len(entries)-1 {
				continue
			}
			proof, err := tlog.ProveRecord(size, position, hashes)
			if err != nil {
				return 0, 0, err
			}
			if err := tlog.CheckRecord(proof, size, root, position, leaf); err != nil {
				return 0, 0, fmt.Errorf("entry %d: %w", position, err)
			}
			proven++
		}
	}
	computed, err := tlog.TreeHash(size, &tree)
	if err == nil && computed != root {
		err = fmt.Errorf("the entries give root %s, the checkpoint says %s", computed, root)
	}
	return proven, bytes, err
}

func check(log site, key string, earlier []string) error {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return err
	}
	size, root, err := log.checkpoint(verifier)
	if err != nil {
		return err
	}
	hashes := tlog.TileHashReader(tlog.Tree{N: size, Hash: root}, log)
	computed, err := tlog.TreeHash(size, hashes)
	if err != nil {
		return err
	}
	if computed != root {
		return fmt.Errorf("the tiles give root %s, the checkpoint says %s", computed, root)
	}
	proven, bytes, err := log.entries(size, root, hashes)
	if err != nil {
		return err
	}
	for _, argument := range earlier {
		size1, root1, found := strings.Cut(argument, ":")
		if !found {
			return fmt.Errorf("%q is not size:root", argument)
		}
		old, oldRoot, err := parse(size1, root1)
		if err != nil {
			return err
		}
		proof, err := tlog.ProveTree(size, old, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(proof, size, root, old, oldRoot); err != nil {
			return fmt.Errorf("size %d is no prefix of size %d: %w", old, size, err)
		}
	}
	fmt.Printf("%s: size %d, root %s: root of %d bytes of entries, %d proven one by one, %d earlier sizes consistent\n",
		verifier.Name(), size, root, bytes, proven, len(earlier))
	return nil
}

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: main <url> <key> [<size>:<root> ...]")
		os.Exit(2)
	}
	log := site{url: strings.TrimSuffix(os.Args[1], "/"), saved: make(map[string][]byte)}
	if err := check(log, os.Args[2], os.Args[3:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
