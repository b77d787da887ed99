// SPDX-License-Identifier: GPL-3.0-or-later
#ifndef ATTPCFILTERTAGS_H
#define ATTPCFILTERTAGS_H

#include <Rtypes.h>
#include <TBranch.h>
#include <TFile.h>
#include <TLeaf.h>
#include <TSystem.h>
#include <TTree.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

/**
 * Tags of attpc-filter, looked up by entry of the tree that was filtered.
 *
 * Needs plain ROOT only. The file is the friend tree that attpc-filter wrote: a tree `tags` with one
 * row for every entry of the run's tree, in its order. All of it is read at once: some bytes an
 * entry, a few MB for a run.
 *
 *     AttpcFilterTags tags("run_0042_tags.root");
 *     tags.GetTag(17);                 // "proton"
 *     tags.GetScore("proton", 17);     // 0.93; NaN where the event was not scored
 *     task->SetReductionFunction(tags.Keep({"proton"}, entryNow));
 */
class AttpcFilterTags {
public:
   /// A function that AtDataReductionTask takes: true keeps the event.
   using ReductionFunction = std::function<bool()>;
   /// Says which entry of the tree is being read.
   using EntryFunction = std::function<Long64_t()>;

   /// Read the tags of a file; throws std::runtime_error if it holds none.
   explicit AttpcFilterTags(const std::string &path, const std::string &treeName = "tags")
   {
      std::unique_ptr<TFile> file(TFile::Open(path.c_str()));
      if (!file || file->IsZombie())
         throw std::runtime_error(path + ": cannot be opened");
      auto tree = file->Get<TTree>(treeName.c_str());
      if (tree == nullptr || tree->GetBranch("tag") == nullptr || tree->GetBranch("tag_code") == nullptr)
         throw std::runtime_error(path + ": no tree " + treeName + " with tags in it");
      ReadTags(*tree);
      ReadScores(*tree);
   }

   /// Entries of the tree that was filtered.
   Long64_t GetEntries() const { return fTags.size(); }

   /// The tag of an entry; throws std::out_of_range if the tree had fewer entries.
   const std::string &GetTag(Long64_t entry) const
   {
      RequireEntry(entry);
      return fNames[fTags[entry]];
   }

   /// The score of an entry for a class; NaN where the event was not scored.
   Float_t GetScore(const std::string &className, Long64_t entry) const
   {
      RequireEntry(entry);
      auto scores = fScores.find(className);
      if (scores == fScores.end())
         throw std::out_of_range("no scores for " + className);
      return scores->second[entry];
   }

   /// The tags that occur, in the order in which they do.
   const std::vector<std::string> &GetNames() const { return fNames; }

   /// The number of a tag in the column `tag_code`; throws std::out_of_range if no entry has it.
   Int_t GetCode(const std::string &tag) const
   {
      auto found = std::find(fNames.begin(), fNames.end(), tag);
      if (found == fNames.end())
         throw std::out_of_range("no entry is tagged " + tag);
      return fCodes[found - fNames.begin()];
   }

   /// How many entries have a tag.
   Long64_t Count(const std::string &tag) const
   {
      Long64_t count = 0;
      for (auto index : fTags)
         count += fNames[index] == tag;
      return count;
   }

   /**
    * Refuse, by std::runtime_error, what would lose events without a word. Call it before the output
    * is made.
    *
    * The tags must be as many as the tree has entries: tags of another file, or of the whole run
    * beside its reduced file, would pass until they end. A tag that the file does not know, such as a
    * mistyped one, would select nothing. An output that is the input would destroy the run.
    */
   void Require(TTree &tree, const std::vector<std::string> &tags, const std::string &input,
                const std::string &output) const
   {
      if (tree.GetEntries() != GetEntries())
         throw std::runtime_error("tags of " + std::to_string(GetEntries()) + " entries, the tree has " +
                                  std::to_string(tree.GetEntries()) + ": give the tags of this very file");
      const auto known = GetKnownTags();
      for (const auto &tag : tags)
         if (std::find(known.begin(), known.end(), tag) == known.end()) {
            std::string all;
            for (const auto &name : known)
               all += (all.empty() ? "" : ", ") + name;
            throw std::runtime_error("no tag " + tag + "; there are " + all);
         }
      if (IsSameFile(input, output))
         throw std::runtime_error(output + ": the output is the input; give another name");
   }

   /// Tags that an entry of the file can have: its classes, and the three that are no class.
   std::vector<std::string> GetKnownTags() const
   {
      std::vector<std::string> known;
      for (const auto &scores : fScores)
         known.push_back(scores.first);
      for (const auto &name : {"uncertain", "unreadable", "passthrough"})
         known.emplace_back(name);
      for (const auto &name : fNames)
         if (std::find(known.begin(), known.end(), name) == known.end())
            known.push_back(name);
      return known;
   }

   /// Whether two names lead to one file.
   static bool IsSameFile(const std::string &one, const std::string &other)
   {
      FileStat_t first, second;
      if (gSystem->GetPathInfo(one.c_str(), first) != 0 || gSystem->GetPathInfo(other.c_str(), second) != 0)
         return false; // one of them is not there
      return first.fDev == second.fDev && first.fIno == second.fIno;
   }

   /**
    * A reduction function that keeps entries with one of the tags.
    *
    * In an ATTPCROOT chain that reads a tree, the entry is that of FairRootManager:
    * `[] { return FairRootManager::Instance()->GetEntryNr(); }`. Events that were never tagged make
    * it throw: to drop them silently would be to tag them.
    */
   ReductionFunction Keep(const std::vector<std::string> &tags, EntryFunction entryNow) const
   {
      std::vector<bool> kept(fTags.size());
      for (std::size_t entry = 0; entry < fTags.size(); ++entry)
         kept[entry] = std::find(tags.begin(), tags.end(), fNames[fTags[entry]]) != tags.end();
      return [kept = std::move(kept), entryNow = std::move(entryNow)]() {
         auto entry = entryNow();
         if (entry < 0 || entry >= static_cast<Long64_t>(kept.size()))
            throw std::out_of_range("entry " + std::to_string(entry) + " has no tag: are these the tags of this file?");
         return static_cast<bool>(kept[entry]);
      };
   }

private:
   static constexpr int kLongestTag = 4096;
   static constexpr const char *kScore = "score_";

   std::vector<std::string> fNames;                     //< tags that occur
   std::vector<Int_t> fCodes;                           //< their numbers in the file
   std::vector<std::uint8_t> fTags;                     //< index into fNames, by entry
   std::map<std::string, std::vector<Float_t>> fScores; //< by class, then by entry

   void RequireEntry(Long64_t entry) const
   {
      if (entry < 0 || entry >= GetEntries())
         throw std::out_of_range("entry " + std::to_string(entry) + " has no tag");
   }

   void ReadTags(TTree &tree)
   {
      std::vector<char> text(kLongestTag);
      Int_t code = 0;
      std::map<std::string, std::uint8_t> indices;
      auto tags = tree.GetBranch("tag");
      auto codes = tree.GetBranch("tag_code");
      tags->SetAddress(text.data());
      codes->SetAddress(&code);
      for (Long64_t entry = 0; entry < tree.GetEntries(); ++entry) {
         tags->GetEntry(entry);
         codes->GetEntry(entry);
         auto found = indices.emplace(text.data(), static_cast<std::uint8_t>(fNames.size()));
         if (found.second) {
            fNames.emplace_back(text.data());
            fCodes.push_back(code);
         }
         fTags.push_back(found.first->second);
      }
      tags->ResetAddress();
      codes->ResetAddress();
   }

   void ReadScores(TTree &tree)
   {
      const std::string prefix = kScore;
      for (auto object : *tree.GetListOfBranches()) {
         std::string name = object->GetName();
         if (name.compare(0, prefix.size(), prefix) != 0)
            continue;
         auto &scores = fScores[name.substr(prefix.size())];
         auto branch = tree.GetBranch(name.c_str());
         Float_t score = 0;
         branch->SetAddress(&score);
         for (Long64_t entry = 0; entry < tree.GetEntries(); ++entry) {
            branch->GetEntry(entry);
            scores.push_back(score);
         }
         branch->ResetAddress();
      }
   }
};

#endif // ATTPCFILTERTAGS_H
