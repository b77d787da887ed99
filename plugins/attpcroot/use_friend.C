// SPDX-License-Identifier: GPL-3.0-or-later
//
// The tags of attpc-filter as a friend of the tree that was filtered, in plain ROOT: counts, a
// histogram, a selection with RDataFrame, and a skim with every branch of the events. No dictionary
// of ATTPCROOT is needed for any of it.
//
//    root -l -b -q 'use_friend.C("run_0042.root", "run_0042_tags.root", "proton", "skim.root")'

#include "AttpcFilterTags.h"

#include <ROOT/RDataFrame.hxx>
#include <TError.h>
#include <TFile.h>
#include <TH1D.h>
#include <TTree.h>

#include <iostream>
#include <memory>
#include <string>

int use_friend(const char *events, const char *friends, const std::string &tag, const char *skim,
               const char *treeName = "cbmsim")
{
   std::unique_ptr<TFile> file(TFile::Open(events));
   auto tree = file ? file->Get<TTree>(treeName) : nullptr;
   if (tree == nullptr) {
      std::cerr << events << ": no tree " << treeName << std::endl;
      return 1;
   }
   tree->AddFriend("tags", friends);

   // one row for every entry, or the tags are those of another file
   AttpcFilterTags tags(friends);
   if (tags.GetEntries() != tree->GetEntries()) {
      std::cerr << friends << ": tags of " << tags.GetEntries() << " entries, the tree has " << tree->GetEntries()
                << std::endl;
      return 1;
   }
   for (const auto &name : tags.GetNames())
      std::cout << name << ": " << tags.Count(name) << " of " << tags.GetEntries() << std::endl;

   // Draw: texts are compared with ==
   const std::string selection = "tags.tag==\"" + tag + "\"";
   const auto drawn = tree->Draw("tags.event", selection.c_str(), "goff");
   std::cout << "Draw: " << drawn << " entries of " << tag << std::endl;

   // RDataFrame: by number, which is what it filters fastest; here found by the first entry of that tag
   Int_t code = -1;
   tree->SetBranchStatus("*", false);
   tree->SetBranchStatus("tags.tag_code", true);
   TTree *friendTree = tree->GetFriend("tags");
   friendTree->SetBranchAddress("tag_code", &code);
   Int_t wanted = -1;
   for (Long64_t entry = 0; entry < tags.GetEntries(); ++entry) {
      if (tags.GetTag(entry) != tag)
         continue;
      friendTree->GetEntry(entry);
      wanted = code;
      break;
   }
   friendTree->ResetBranchAddresses();
   tree->SetBranchStatus("*", true);
   ROOT::RDataFrame frame(*tree);
   const auto filtered = frame.Filter("tags.tag_code == " + std::to_string(wanted)).Count().GetValue();
   std::cout << "RDataFrame: " << filtered << " entries of " << tag << std::endl;

   // CopyTree: whole events, all branches
   std::unique_ptr<TFile> out(TFile::Open(skim, "RECREATE"));
   auto copy = tree->CopyTree(selection.c_str());
   out->Write();
   std::cout << "CopyTree: " << copy->GetEntries() << " entries in " << skim << std::endl;
   return drawn == copy->GetEntries() && static_cast<ULong64_t>(drawn) == filtered ? 0 : 2;
}
