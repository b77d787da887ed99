// SPDX-License-Identifier: GPL-3.0-or-later
//
// The tags of attpc-filter as a friend of the tree that was filtered.
//
//    root -l -b -q 'use_friend.C("run_0042.root", "run_0042_tags.root", "proton")'
//    root -l -b -q 'use_friend.C("run_0042.root", "run_0042_tags.root", "proton", "protons.root")'
//
// Counts, Draw and RDataFrame need plain ROOT. The skim (with a fourth argument) copies whole events
// with CopyTree: for trees of ATTPCROOT's classes load ATTPCROOT's libraries first, for ROOT cannot
// write objects of classes that it does not know (version 6.40 crashes when it tries, so the macro
// refuses). The skim gets all that FairRoot looks for beside the tree: the lists of branches, the folder
// and the header. An output that is the input, an unknown tag and the tags of another file are
// refused.

#include "AttpcFilterTags.h"

#include <ROOT/RDataFrame.hxx>
#include <TClass.h>
#include <TFile.h>
#include <TKey.h>
#include <TList.h>
#include <TStreamerInfo.h>
#include <TTree.h>

#include <exception>
#include <iostream>
#include <memory>
#include <string>

/// A class that is in the file and not known to this ROOT; empty if all are.
std::string UnknownClass(TFile &file)
{
   std::unique_ptr<TList> infos(file.GetStreamerInfoList());
   infos->SetOwner();
   for (auto info : *infos) {
      std::string name = info->GetName();
      // pairs and other templates ROOT puts together itself
      if (dynamic_cast<TStreamerInfo *>(info) == nullptr || name.find('<') != std::string::npos)
         continue;
      auto known = TClass::GetClass(name.c_str(), true, true);
      if (known == nullptr || !known->HasDictionary())
         return name;
   }
   return "";
}

/// Copy what FairRoot looks for beside the tree: the lists of branches, the folder, the header.
void CopyOtherKeys(TFile &from, TFile &to, const std::string &treeName)
{
   for (auto object : *from.GetListOfKeys()) {
      auto key = static_cast<TKey *>(object);
      const std::string name = key->GetName();
      if (name == treeName || to.GetListOfKeys()->FindObject(name.c_str()) != nullptr)
         continue;
      std::unique_ptr<TObject> value(key->ReadObj());
      if (value == nullptr || value->InheritsFrom("TTree") || value->InheritsFrom("TDirectory"))
         continue;
      to.cd();
      value->Write(name.c_str(), TObject::kSingleKey); // a list stays one object
   }
   to.cd();
}

int use_friend(const char *events, const char *friends, const std::string &tag, const char *skim = "",
               const char *treeName = "cbmsim")
{
   std::unique_ptr<TFile> file(TFile::Open(events));
   auto tree = file ? file->Get<TTree>(treeName) : nullptr;
   if (tree == nullptr) {
      std::cerr << events << ": no tree " << treeName << std::endl;
      return 1;
   }
   std::unique_ptr<AttpcFilterTags> read;
   try {
      read = std::make_unique<AttpcFilterTags>(friends);
      read->Require(*tree, {tag}, events, skim);
   } catch (const std::exception &error) {
      std::cerr << friends << ": " << error.what() << std::endl;
      return 1;
   }
   const AttpcFilterTags &tags = *read;
   for (const auto &name : tags.GetNames())
      std::cout << name << ": " << tags.Count(name) << " of " << tags.GetEntries() << std::endl;
   if (tags.Count(tag) == 0) {
      std::cout << "no entry is tagged " << tag << std::endl;
      return 0;
   }

   tree->AddFriend("tags", friends);
   const std::string selection = "tags.tag==\"" + tag + "\"";
   const auto drawn = tree->Draw("tags.event", selection.c_str(), "goff");
   std::cout << "Draw: " << drawn << " entries of " << tag << std::endl;

   // RDataFrame sees texts as rows of characters: select by the tag's number
   ROOT::RDataFrame frame(*tree);
   const auto counted = frame.Filter("tags.tag_code == " + std::to_string(tags.GetCode(tag))).Count().GetValue();
   std::cout << "RDataFrame: " << counted << " entries of " << tag << std::endl;
   if (static_cast<Long64_t>(counted) != drawn)
      return 2;
   if (std::string(skim).empty())
      return 0;

   const auto unknown = UnknownClass(*file);
   if (!unknown.empty()) {
      std::cerr << "no skim: " << events << " holds objects of " << unknown
                << ", which this ROOT does not know; load ATTPCROOT's libraries first" << std::endl;
      return 3;
   }
   std::unique_ptr<TFile> out(TFile::Open(skim, "RECREATE"));
   if (!out || out->IsZombie()) {
      std::cerr << skim << ": cannot be written" << std::endl;
      return 1;
   }
   auto copy = tree->CopyTree(selection.c_str());
   CopyOtherKeys(*file, *out, treeName);
   out->Write();
   std::cout << "CopyTree: " << copy->GetEntries() << " entries in " << skim << std::endl;
   return copy->GetEntries() == drawn ? 0 : 2;
}
